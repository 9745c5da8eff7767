"""From names and bytes to pixels of the network's size, and the way back."""
