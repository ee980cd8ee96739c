"""Training a model that one process does not hold, or not alone: accumulation, data, sharded, tensor and pipeline parallelism, launchers."""
