"""Query expansion: feedback terms for BM25 (RM3), and hypothetical passages for the dense leg (HyDE)."""
