"""The study notes as a site: pages, the learning path drawn, and what was last measured beside what is claimed."""
