"""Adapting a language model on little memory: LoRA, NF4 quantisation, QLoRA training, perplexity and the memory ledger."""
