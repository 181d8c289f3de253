"""SOURCE of a command -> a run folder, or weights."""
