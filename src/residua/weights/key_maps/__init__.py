"""Our layer names <-> those of other programs."""
