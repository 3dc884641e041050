"""From a name, a folder or a model in memory to what a TransformerBridge is made of."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedModel

from transformer_lens.config import TransformerBridgeConfig, default_device
from transformer_lens.errors import ConfigurationError
from transformer_lens.models.huggingface import config_of_model
from transformer_lens.models.loading import TOKENIZER_FILES, find
from transformer_lens.models.request import Request
from transformer_lens.specs import HFConfig, Spec, UnsupportedModelError, find_spec
from transformer_lens.specs.rules import rotary, rotary_by_layer_type
from transformer_lens.text.loading import load_tokenizer
from transformer_lens.weights.canonical import axis_sizes
from transformer_lens.wrapped.anatomy import Anatomy
from transformer_lens.wrapped.host import WrappedHost
from transformer_lens.wrapped.tree import grow

# Arguments that say which files are loaded, and how.
FOR_LOADING = (
    "hf_config_overrides", "model_class", "revision", "checkpoint_index", "checkpoint_value", "device_map",
    "max_memory", "offload_folder",
)  # fmt: skip


@dataclass(frozen=True)
class BootRequest:
    """What a caller asks of `boot_transformers`. See there."""

    hf_config_overrides: dict[str, Any] | None = None
    device: str | torch.device | None = None
    dtype: torch.dtype | None = None
    tokenizer: Any = None
    load_weights: bool = True
    trust_remote_code: bool = False
    model_class: Any = None
    hf_model: PreTrainedModel | None = None
    n_ctx: int | None = None
    revision: str | None = None
    checkpoint_index: int | None = None
    checkpoint_value: int | None = None
    device_map: str | dict[str, Any] | None = None
    max_memory: dict[Any, Any] | None = None
    offload_folder: str | os.PathLike[str] | None = None


@dataclass(frozen=True)
class Booted:
    """A transformers model, where its parts are, its tokenizer, and what puts views of the parts into a bridge."""

    model: PreTrainedModel
    anatomy: Anatomy
    tokenizer: Any
    grow: Callable[[WrappedHost, nn.Module], None] = grow


def boot(name: str, request: BootRequest) -> Booted:
    """The model of this name, folder or in memory."""
    if request.hf_model is not None:
        model, tokenizer = _given(request, request.hf_model), request.tokenizer
    else:
        folder = _folder(name, request)
        model, tokenizer = _load(folder, request), request.tokenizer
        if tokenizer is None and any(path.name.startswith(TOKENIZER_FILES) for path in folder.iterdir()):
            tokenizer = load_tokenizer(folder, trust_remote_code=request.trust_remote_code)
    return Booted(model, anatomy_of(model, Path(name).name, request.n_ctx), tokenizer)


def _given(request: BootRequest, model: PreTrainedModel) -> PreTrainedModel:
    idle = [name for name in FOR_LOADING if getattr(request, name) is not None]
    if idle:
        raise ConfigurationError(f"{', '.join(idle)} has no effect on a model in memory (hf_model).")
    if request.dtype not in (None, model.dtype):
        raise ConfigurationError(f"hf_model is {model.dtype}; cast it before booting: hf_model.to({request.dtype}).")
    return model if request.device is None else model.to(request.device)


def _folder(name: str, request: BootRequest) -> Path:
    asked = {key: getattr(request, key) for key in ("checkpoint_index", "checkpoint_value", "trust_remote_code")}
    more = {} if request.revision is None else {"revision": request.revision}
    found = find(name, Request.of(asked, more))
    assert found.folder is not None
    return found.folder


def _load(folder: Path, request: BootRequest) -> PreTrainedModel:
    kind = request.model_class or transformers.AutoModelForCausalLM
    local = {"local_files_only": True, "trust_remote_code": request.trust_remote_code}
    config = transformers.AutoConfig.from_pretrained(str(folder), **local, **(request.hf_config_overrides or {}))
    dtype = {} if request.dtype is None else {"dtype": request.dtype}
    if not request.load_weights:
        model = kind.from_config(config, **dtype) if request.model_class is None else kind(config)
        return model.eval().to(request.device or default_device())
    spread = {
        name: getattr(request, name)
        for name in ("device_map", "max_memory", "offload_folder")
        if getattr(request, name) is not None
    }
    model = kind.from_pretrained(str(folder), config=config, **local, **dtype, **spread)
    if "device_map" in spread:
        if request.device is not None:
            raise ConfigurationError("device and device_map both say where the model goes; give one of them.")
        return model
    return model.to(request.device or default_device())


def anatomy_of(model: PreTrainedModel, name: str, n_ctx: int | None = None) -> Anatomy:
    """Where the parts of a transformers model are.

    Args:
        model: the model.
        name: what it is called.
        n_ctx: the longest text to cut to, if not the model's own context length.

    Raises:
        UnsupportedModelError: no spec describes this model as it is configured.
    """
    config = config_of_model(model.config)
    spec = find_spec(config)
    if model.config.model_type in spec.inside:
        raise UnsupportedModelError(
            f"{type(model).__name__} holds its text model inside a larger one, which the bridge does not wrap. "
            f"Boot the text model alone: {spec.architecture}."
        )
    fields = _fields(spec, config)
    sizes = axis_sizes(fields)
    if n_ctx is not None:
        if fields.get("positional_embedding_type", "standard") == "standard" and n_ctx > fields["n_ctx"]:
            raise ConfigurationError(
                f"n_ctx={n_ctx} exceeds the {fields['n_ctx']} positions that this model has learned embeddings for."
            )
        fields["n_ctx"] = n_ctx
    weight = next(model.parameters())
    cfg = TransformerBridgeConfig.from_dict({
        **fields, "device": str(weight.device), "dtype": weight.dtype, "model_name": name, "init_weights": False,
        "use_hook_tokens": True,
        "architecture": type(model).__name__, "original_architecture": type(model).__name__,
        "tie_word_embeddings": bool(config.get("tie_word_embeddings", True)),
    })  # fmt: skip
    anatomy = Anatomy(spec, config, cfg, sizes)
    _check_parameters(anatomy, model)
    return anatomy


def _fields(spec: Spec, config: HFConfig) -> dict[str, Any]:
    """Our fields for a configuration. Transformers runs the model, so positions need no rule here."""
    fields: dict[str, Any] = {ours: config[theirs] for ours, theirs in spec.same.items()}
    fields.update(spec.fixed)
    for rule in spec.rules:
        try:
            fields.update(rule(config))
        except UnsupportedModelError:
            if rule not in (rotary, rotary_by_layer_type):
                raise
            fields["positional_embedding_type"] = "rotary"
    for field, (accepted, why) in spec.refuses.items():
        value = config.get(field, accepted[0])
        if value not in accepted:
            raise UnsupportedModelError(
                f"{spec.name} with {field}={value!r} ({why}): where its parts are is not known here."
            )
    return fields


def _check_parameters(anatomy: Anatomy, model: PreTrainedModel) -> None:
    known = {
        rule.hf.format(layer=layer, expert=0)
        for rule in anatomy.rules.values()
        for layer in range(anatomy.cfg.n_layers if rule.per_layer else 1)
    }
    held = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    extra = sorted(name for name in held - known if not anatomy.spec.ignores(name))
    missing = sorted(known - held)
    if extra or missing:
        raise UnsupportedModelError(
            f"This {type(model).__name__} is not as {anatomy.spec.name} is known: "
            + "; ".join(
                f"{what} {', '.join(names[:5])}" for what, names in (("unknown", extra), ("missing", missing)) if names
            )
            + "."
        )
