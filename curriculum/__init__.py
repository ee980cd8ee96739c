"""The library: every study of the curriculum as plain Python and PyTorch. It never imports dagster."""
