"""Published claims -> reproducible studies: runs over several seeds, or computations."""
