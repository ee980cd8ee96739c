"""Search tuned on dev questions alone: chunking, BM25, fusion, depth and reranking, with a test split that can be read once."""
