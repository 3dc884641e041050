"""HuggingFace configurations, from a name, a folder or a model in memory, as mappings that specs read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers

from transformer_lens.specs import FAMILIES, HFConfig


def config_of_model(hf_config: Any, inside: str = "") -> HFConfig:
    """A transformers configuration object as a mapping, with the defaults of its class."""
    part = getattr(hf_config, inside) if inside else hf_config
    return HFConfig(part.to_dict(), type(part)().to_dict())


def config_of_folder(folder: Path, overrides: dict[str, Any] | None = None) -> HFConfig:
    """The configuration in a folder's config.json, with the defaults that transformers fills in.

    Raises:
        FileNotFoundError: the folder has no config.json.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no config.json; it is not the folder of a model.")
    raw = json.loads(path.read_text()) | (overrides or {})
    own = next((spec for spec in FAMILIES if spec.defaults and raw.get("model_type") in spec.model_types), None)
    if own is not None:  # a family that transformers itself does not know
        return HFConfig({**own.defaults, **raw}, own.defaults)
    hf_config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True)
    inside = next((spec.inside for spec in FAMILIES if hf_config.model_type in spec.model_types), "")
    return config_of_model(hf_config, inside)
