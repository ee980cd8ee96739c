"""Retrieval-augmented answers: retrieve, rerank, answer, verify, cite; and their evaluation."""
