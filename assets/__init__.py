"""What exists: every asset of the lineage, one module a part of the syllabus."""
