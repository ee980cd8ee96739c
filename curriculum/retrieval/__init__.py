"""Retrieval: passages, BM25, dense vectors, fusion, and their evaluation."""
