"""Handles that assets are given: compute, models, data, artifacts, journal, generator."""
