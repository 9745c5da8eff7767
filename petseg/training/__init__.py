"""A training run: what it is, how it learns, and what it keeps and shows."""
