"""Canonical tensors as the weights of linear layers: `blocks.0.attn.q.weight` [head * d_head, d_model] for `W_Q`.

TransformerLens 4's native bridges save their state under these names. Both directions are one table.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import NamedTuple

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from transformer_lens.config import HookedTransformerConfig
from transformer_lens.weights.checkpoints import CheckpointError

# What old state dicts hold that follows from the configuration.
_DERIVED = ("mask", "IGNORE", "rotary_sin", "rotary_cos", "alibi")
_NORM = "ln1|ln2|ln1_post|ln2_post|ln_final|ln|q_norm|k_norm"


class _Rule(NamedTuple):
    """One kind of tensor: where it stands, its canonical leaf, the other spelling, and axes from one to the other."""

    place: str
    ours: str
    theirs: str
    axes: str
    heads: str = ""


_RULES = (
    _Rule("embed", "W_E", "weight", "vocab d_model -> vocab d_model"),
    _Rule("pos_embed", "W_pos", "weight", "pos d_model -> pos d_model"),
    _Rule("unembed", "W_U", "weight", "d_model vocab -> vocab d_model"),
    _Rule("unembed", "b_U", "bias", "vocab -> vocab"),
    *(
        _Rule("attn", f"W_{letter}", f"{letter.lower()}.weight", "head d_model d_head -> (head d_head) d_model", heads)
        for letter, heads in (("Q", "n_heads"), ("K", "n_key_value_heads"), ("V", "n_key_value_heads"))
    ),
    *(
        _Rule("attn", f"b_{letter}", f"{letter.lower()}.bias", "head d_head -> (head d_head)", heads)
        for letter, heads in (("Q", "n_heads"), ("K", "n_key_value_heads"), ("V", "n_key_value_heads"))
    ),
    _Rule("attn", "W_O", "o.weight", "head d_head d_model -> d_model (head d_head)", "n_heads"),
    _Rule("attn", "b_O", "o.bias", "d_model -> d_model"),
    *(_Rule("mlp", f"W_{part}", f"{part}.weight", "into out -> out into") for part in ("in", "out", "gate")),
    *(_Rule("mlp", f"b_{part}", f"{part}.bias", "out -> out") for part in ("in", "out", "gate")),
    _Rule(_NORM, "w", "weight", "width -> width"),
    _Rule(_NORM, "b", "bias", "width -> width"),
)


def convert_tl_checkpoint(
    state_dict: Mapping[str, Float[Tensor, "..."]], cfg: HookedTransformerConfig
) -> dict[str, Float[Tensor, "..."]]:
    """A HookedTransformer's state dict as weights of linear layers, which `boot_native(cfg).load_state_dict` takes too.

    Masks and rotary tables of old state dicts follow from the configuration and are left out.

    Args:
        state_dict: canonical names (`blocks.0.attn.W_Q`) and shapes.
        cfg: the configuration it was saved under, by which the heads are told apart.

    Raises:
        CheckpointError: a name that no canonical tensor has, a layer that the configuration does not have, or heads of
            other shapes than it says.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> state = convert_tl_checkpoint(model.state_dict(), model.cfg)
        >>> list(state["blocks.0.attn.q.weight"].shape) == [model.cfg.n_heads * model.cfg.d_head, model.cfg.d_model]
        True
    """
    found = {}
    for name, tensor in state_dict.items():
        place, _, leaf = name.rpartition(".")
        if leaf in _DERIVED:
            continue
        rule = _rule(place, re.sub(r"^_(?=[Wb]_[KV]$)", "", leaf), 1)
        if rule is None:
            raise CheckpointError(f"The state dict holds {name}, which is no canonical tensor known here.")
        _check(name, tensor, rule, cfg)
        found[f"{place}.{rule.theirs}"] = rearrange(tensor, rule.axes).contiguous()
    return found


def canonical_of_linear(
    state_dict: Mapping[str, Tensor], cfg: HookedTransformerConfig, other: Container[str]
) -> dict[str, Tensor]:
    """A state dict in which weights of linear layers have canonical names and shapes; the rest is as it was.

    Args:
        state_dict: the tensors.
        cfg: how many heads there are.
        other: names that mean something else.

    Raises:
        CheckpointError: rows that are no whole number of heads.

    Example:
        >>> import torch
        >>> cfg = HookedTransformerConfig(d_model=8, d_head=4, n_layers=1, n_ctx=6, d_vocab=7, act_fn="gelu")
        >>> canonical_of_linear({"blocks.0.attn.q.weight": torch.ones(8, 8)}, cfg, ())["blocks.0.attn.W_Q"].shape
        torch.Size([2, 8, 4])
    """
    found = {}
    for name, tensor in state_dict.items():
        place, rule = _linear(name)
        if rule is None or name in other:
            found[name] = tensor
            continue
        left, right = rule.axes.split(" -> ")
        sizes = {"head": _count(rule, cfg)} if rule.heads else {}
        if rule.heads and tensor.shape[-1 if rule.theirs.startswith("o.") else 0] != sizes["head"] * cfg.d_head:
            raise CheckpointError(f"{name} is {tuple(tensor.shape)}, for {sizes['head']} heads of {cfg.d_head}.")
        found[f"{place}.{rule.ours}"] = rearrange(tensor, f"{right} -> {left}", **sizes)
    return found


def canonical_name(name: str) -> str:
    """The canonical name of what a linear layer's name means; another name stays as it is.

    Example:
        >>> canonical_name("blocks.0.attn.q.weight"), canonical_name("blocks.0.attn.W_Q")
        ('blocks.0.attn.W_Q', 'blocks.0.attn.W_Q')
    """
    place, rule = _linear(name)
    return name if rule is None else f"{place}.{rule.ours}"


def _linear(name: str) -> tuple[str, _Rule | None]:
    """Where a tensor stands by a linear layer's name, and its rule."""
    depth = 2 if re.search(r"\.(attn|mlp)\.(q|k|v|o|in|out|gate)\.(weight|bias)$", name) else 1
    place, *leaves = name.rsplit(".", depth)
    return place, _rule(place, ".".join(leaves), 2)


def _rule(place: str, leaf: str, field: int) -> _Rule | None:
    last = place.rpartition(".")[2]
    return next((rule for rule in _RULES if rule[field] == leaf and re.fullmatch(rule.place, last)), None)


def _count(rule: _Rule, cfg: HookedTransformerConfig) -> int:
    return getattr(cfg, rule.heads) or cfg.n_heads


def _check(name: str, tensor: Tensor, rule: _Rule, cfg: HookedTransformerConfig) -> None:
    layer = re.match(r"blocks\.(\d+)\.", name)
    if layer is not None and int(layer[1]) >= cfg.n_layers:
        raise CheckpointError(f"The state dict holds {name}, and the configuration has {cfg.n_layers} layers.")
    if rule.heads:
        sizes = {"head": _count(rule, cfg), "d_model": cfg.d_model, "d_head": cfg.d_head}
        expected = tuple(sizes[axis] for axis in rule.axes.split(" -> ")[0].split())
        if tuple(tensor.shape) != expected:
            raise CheckpointError(
                f"{name} has shape {tuple(tensor.shape)}, and the configuration says {expected}: was it saved under "
                "another one (n_heads, n_key_value_heads, d_head, d_model)?"
            )
