"""The run folder, and what names a run or weights."""
