"""Batch [B, C, H, W] -> logits [B, K] or feature maps; knows nothing of files and data sets."""
