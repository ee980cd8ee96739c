"""Text: collected, cleaned, deduplicated, split."""
