"""The command line: `transformer-lens`."""

from transformer_lens.cli.app import main

__all__ = ["main"]
