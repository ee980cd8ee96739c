"""Tokenizers: trained, compared, and used to pack text into blocks."""
