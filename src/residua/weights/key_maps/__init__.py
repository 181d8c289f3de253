"""Names of layers in other programs <-> ours."""
