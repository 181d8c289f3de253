"""Published weights: where they are, what they expect, what they predict."""
