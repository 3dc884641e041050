"""The activations of a run, by name."""
