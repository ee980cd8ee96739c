"""The Transformer from scratch: attention, the model, its training, and what it is measured against."""
