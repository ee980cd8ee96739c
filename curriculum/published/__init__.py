"""What makers of models state about them: facts with their sources, beside what can be computed."""
