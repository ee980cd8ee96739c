-- The journal's own database: MLflow and Dagster each keep a table alembic_version.
CREATE DATABASE mlflow;
