"""Statistics that turn scores into claims: intervals, paired comparisons, gates."""
