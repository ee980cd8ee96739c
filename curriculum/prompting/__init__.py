"""Prompt patterns and their study."""
