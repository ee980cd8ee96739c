"""A user's own folder of documents: parsed, cut, encoded and indexed, each time only what changed."""
