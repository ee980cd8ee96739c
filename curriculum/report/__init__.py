"""The report card: what the last run measured, on one self-contained page."""
