"""Engines move data between the steps; they know nothing of what the steps do."""
