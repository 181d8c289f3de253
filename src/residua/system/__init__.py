"""The machine: console, files, device, signals, time budget."""
