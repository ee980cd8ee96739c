"""Extractive reading: data, windows, training, decoding, and the SQuAD scores."""
