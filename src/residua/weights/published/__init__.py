"""Published weights: addresses and hashes, preprocessing, class names, downloads."""
