"""Transfer learning: pretrained weights and other images -> a trained network, by a strategy."""
