"""A built network -> the network with another head, frozen stages, folded norms."""
