"""What a run is asked to do, and what it will do: settled before it does any of it."""
