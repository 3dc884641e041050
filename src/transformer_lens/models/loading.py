"""From a checkpoint or a model in memory to a HookedTransformer."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from transformer_lens import demo
from transformer_lens.config import HookedTransformerConfig
from transformer_lens.models.huggingface import config_of_folder, config_of_model
from transformer_lens.models.origin import Origin
from transformer_lens.specs import HFConfig, Spec, fields_of, find_spec
from transformer_lens.text.loading import load_tokenizer
from transformer_lens.weights.canonical import Plan, axis_sizes, canonical_state
from transformer_lens.weights.checkpoints import InMemory, TensorSource, open_folder
from transformer_lens.weights.processing import refusals

if TYPE_CHECKING:
    from transformer_lens.models.hooked_transformer import HookedTransformer

log = logging.getLogger(__name__)

# What a tokenizer's files begin with. A folder without any gives a model that works on token ids.
TOKENIZER_FILES = ("tokenizer", "vocab", "merges", "spiece", "sentencepiece", "spm")
# On by default for every family, and impossible for many; nobody who did not ask needs to hear of it.
QUIETLY_LEFT_OUT = ("center_writing_weights", "center_unembed")


@dataclass(frozen=True)
class Request:
    """What a caller asks of `from_pretrained`, beside the name and the steps of processing."""

    hf_model: Any = None
    tokenizer: Any = None
    device: str | torch.device | None = None
    n_devices: int = 1
    dtype: torch.dtype = torch.float32
    move_to_device: bool = True
    first_n_layers: int | None = None
    n_ctx: int | None = None
    default_prepend_bos: bool | None = None
    default_padding_side: Any = None
    trust_remote_code: bool = False


def load(cls: type[HookedTransformer], name: str, request: Request, steps: Mapping[str, bool]) -> HookedTransformer:
    """The model of this name, folder or HF model, processed as `steps` say."""
    folder = _folder(name)
    config = config_of_model(request.hf_model.config) if request.hf_model is not None else config_of_folder(folder)
    spec = find_spec(config)
    cfg, plan = _configure(name, spec, config, request)
    source: TensorSource
    if request.hf_model is not None:
        source = InMemory(request.hf_model.state_dict(), f"the given {type(request.hf_model).__name__}")
    else:
        source = open_folder(folder)
    tokenizer = request.tokenizer
    if tokenizer is None and request.hf_model is None and _holds_tokenizer(folder):
        tokenizer = load_tokenizer(folder, trust_remote_code=request.trust_remote_code)
    model = cls(cfg, tokenizer, move_to_device=False, default_padding_side=request.default_padding_side)
    _place(model, canonical_state(plan, source), share=request.hf_model is not None)
    model.origin = Origin(spec, config.fields, plan.sizes, plan.tied, plan.kept)
    _process(model, steps)
    if request.move_to_device:
        model.move_model_modules_to_device()
    return model


def _holds_tokenizer(folder: Path) -> bool:
    return any(path.name.startswith(TOKENIZER_FILES) for path in folder.iterdir())


def _process(model: HookedTransformer, steps: Mapping[str, bool]) -> None:
    """Process the model's weights; what a default asks for in vain is logged, what is lost is warned about."""
    own = {name: parameter.data for name, parameter in model.named_parameters()}
    asked = {name for name, wanted in steps.items() if wanted}
    quiet = set(QUIETLY_LEFT_OUT)
    if not any(own[name].any() for name in own if name.endswith(("b_V", ".ln1.b"))):
        quiet.add("fold_value_biases")  # there is none to fold
    for step, reason in refusals(own, model.cfg).items():
        if step in asked & quiet:
            log.info("%s is left out: %s.", step, reason)
            asked.discard(step)
    if asked:
        model._process(own, **{name: name in asked for name in steps})


def _folder(name: str) -> Path:
    return demo.folder() if name.lower() == "demo" else Path(name).expanduser()


def _configure(
    name: str, spec: Spec, config: HFConfig, request: Request
) -> tuple[HookedTransformerConfig, Plan]:
    fields = fields_of(spec, config)
    sizes = axis_sizes(fields)
    tied = bool(config.get("tie_word_embeddings", True))
    layers = fields["n_layers"] if request.first_n_layers is None else min(request.first_n_layers, fields["n_layers"])
    plan = Plan(spec, config, sizes, layers, tied)
    given: dict[str, Any] = {
        "n_layers": layers, "dtype": request.dtype, "init_weights": False, "model_name": Path(name).name,
        "n_devices": request.n_devices,
        "original_architecture": (config.get("architectures") or [spec.architecture])[0],
    }  # fmt: skip
    if request.device is not None:
        given["device"] = str(request.device)
    if request.n_ctx is not None:
        given["n_ctx"] = request.n_ctx
    if request.default_prepend_bos is not None:
        given["default_prepend_bos"] = request.default_prepend_bos
    return HookedTransformerConfig.from_dict({**fields, **given}), plan


@torch.no_grad()
def _place(model: HookedTransformer, tensors: Iterable[tuple[str, Tensor]], share: bool) -> None:
    """Put tensors into the model's parameters one by one; with `share`, use their memory where the dtype allows."""
    parameters = dict(model.named_parameters())
    for name, value in tensors:
        parameter = parameters.pop(name)
        if name == "pos_embed.W_pos":
            value = value[: parameter.shape[0]]  # n_ctx may ask for fewer
        if share and value.dtype == parameter.dtype:
            parameter.data = value
        else:
            parameter.data.copy_(value)
