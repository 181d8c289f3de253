"""residua's layer names <-> those of other programs."""
