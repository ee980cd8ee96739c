"""Vector indexes: exact and approximate ones, which of them a corpus needs, and what the approximate ones lose."""
