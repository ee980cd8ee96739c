"""Learned sparse retrieval: weights over the vocabulary by a masked-language-model head (SPLADE), searched in an inverted index."""
