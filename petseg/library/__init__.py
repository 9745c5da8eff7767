"""petseg for other programs."""
