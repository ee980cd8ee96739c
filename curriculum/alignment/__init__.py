"""Learning from preferences: supervised fine-tuning, a reward model, policy optimisation held back by a KL penalty, and DPO."""
