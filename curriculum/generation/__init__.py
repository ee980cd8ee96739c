"""Text generators behind one interface."""
