"""Static word embeddings from scratch: skip-gram with negative sampling, GloVe, fastText; gensim is the peer and reference."""
