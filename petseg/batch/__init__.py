"""A run of petseg-batch at work, and what is counted and told of it."""
