"""Photos and masks that lie in a store: brought here, worked on by the local engine, put there."""
