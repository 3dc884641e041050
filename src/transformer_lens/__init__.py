"""Read, change and explain every activation of a transformer language model."""
