"""Context compression: fewer tokens of the passages shown, chosen by sentence or by word, and what is lost with the others."""
