"""Training of the sentence encoder that dense retrieval uses."""
