"""Encoding and indexing on the workers of a Ray cluster (the ``cluster`` extra); nothing here imports ray until a cluster is asked for."""
