"""A data set before training: findings about its files, duplicates, labels, shortcuts and size."""
