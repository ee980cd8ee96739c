"""Search and cited answers over HTTP, from the promoted versions."""
