"""Ways of fine-tuning, from every weight to none, compared on one budget of steps and batches."""
