"""A name -> a network: the catalogue of models."""
