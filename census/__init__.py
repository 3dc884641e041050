"""The census: a tiny random model of every type that transformers ships, the bridge over it, and what holds there."""
