"""Networks at work: one interface over PyTorch and OpenVINO."""
