"""Low-bit inference: codes from scratch beside the libraries', and one model in every format: size, speed, perplexity."""
