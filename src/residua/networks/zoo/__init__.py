"""A name -> a network: the rows of the catalogue."""
