"""The native host: our own transformer, in a few hundred lines of plain PyTorch."""
