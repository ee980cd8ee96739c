"""Late interaction: a vector a token, compared at query time by MaxSim; what it gains as a reranker, and what it costs to store."""
