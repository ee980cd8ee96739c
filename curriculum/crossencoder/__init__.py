"""Sequence-pair classification with a cross-encoder: one trainer, used by the reranker and by the support verifier."""
