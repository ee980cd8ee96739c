"""Studies that are tables: one row a partition, run one by one, and compared in one table."""
