"""Multi-hop retrieval: a second search that knows what the first one found."""
