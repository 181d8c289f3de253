"""Networks by name: the rows of the catalogue."""
