"""Models: load, run, edit.

Loading and saving import transformers, so these parts are loaded when they are first used.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "load": "loading", "load_encoder": "loading", "load_audio_encoder": "audio_loading", "to_hf": "saving",
    "save_pretrained": "saving",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
