"""A built network -> its costs, shapes, drawing and description."""
