"""Reranking: a cross-encoder trained on mined hard negatives, over the candidates of the first stage."""
