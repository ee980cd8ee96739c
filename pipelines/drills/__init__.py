"""Fault drills: real processes of a temporary installation are broken on purpose, and each fault gets a verdict."""
