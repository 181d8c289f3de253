"""Batch [B, C, H, W] -> logits [B, K] or feature maps; independent of files and data sets."""
