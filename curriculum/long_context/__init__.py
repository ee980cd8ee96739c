"""Rotary positions past the training length: how far each way of slowing them reaches without further training."""
