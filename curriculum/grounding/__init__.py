"""Grounding: does a passage support a claim? A verifier, a numbers check, and their calibration against human labels."""
