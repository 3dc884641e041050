"""Sampling text from the native transformer, by transformers' own generate.

The parts are loaded when they are first used: they import transformers.
"""

from importlib import import_module
from typing import Any

_HOMES = {"generate": "sampling", "generate_stream": "sampling", "GenerationOptions": "options"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
