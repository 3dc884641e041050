"""Between one tensor of HuggingFace's and the canonical tensors it holds: views where memory allows, and back."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from einops import rearrange
from jaxtyping import Float, Shaped
from torch import Tensor

from transformer_lens.specs.spec import Part, Weight

Sizes = Mapping[str, int]


def hf_shape(weight: Weight, sizes: Sizes) -> tuple[int, ...]:
    """The shape that a tensor of HF's must have.

    Example:
        >>> from transformer_lens.specs.axes import QUERY, one
        >>> hf_shape(one("q.weight", "W_Q", QUERY), {"head": 2, "d_head": 3, "d_model": 8})
        (6, 8)
    """
    pattern = weight.first or weight.parts[0].axes
    shape = _lengths(pattern.split("->")[0], sizes)
    if not weight.first and len(weight.parts) > 1:
        shape = (sum(_rows(part, sizes) for part in weight.parts), *shape[1:])
    return (shape[0] + weight.skip_rows, *shape[1:])


def to_canonical(
    weight: Weight, tensor: Float[Tensor, "..."], sizes: Sizes, factor: float = 1.0
) -> dict[str, Float[Tensor, "..."]]:
    """The canonical tensors inside `tensor`, by canonical name template; views of it where nothing is added or scaled.

    Args:
        weight: the rule.
        tensor: the tensor, of shape `hf_shape`.
        sizes: lengths of the axes in the rule's patterns.
        factor: what `weight.times` stands for.

    Example:
        >>> from transformer_lens.specs.axes import UP, one
        >>> to_canonical(one("fc.weight", "W_in", UP), torch.ones(3, 2), {"d_mlp": 3, "d_model": 2})["W_in"].shape
        torch.Size([2, 3])
    """
    if weight.skip_rows:
        tensor = tensor[weight.skip_rows :]
    if weight.offset:
        tensor = tensor + weight.offset
    if weight.times:
        tensor = tensor * factor
    fused = _arrange(tensor, weight.first, sizes) if weight.first else tensor
    found: dict[str, Tensor] = {}
    start = 0
    for part in weight.parts:
        block = fused
        if len(weight.parts) > 1:
            rows = _rows(part, sizes)
            block = fused[start : start + rows]
            start += rows
        found[part.ours] = _arrange(block, part.axes, sizes)
    found.update(dict.fromkeys(weight.copies, found[weight.parts[0].ours]))
    return found


def from_canonical(
    weight: Weight, tensors: Mapping[str, Shaped[Tensor, "..."]], sizes: Sizes, factor: float = 1.0
) -> Shaped[Tensor, "..."]:
    """The tensor of HF's that holds these canonical tensors; `to_canonical` backwards. Skipped rows come back as zeros.

    Example:
        >>> from transformer_lens.specs.axes import UP, one
        >>> from_canonical(one("fc.weight", "W_in", UP), {"W_in": torch.ones(2, 3)}, {"d_mlp": 3, "d_model": 2}).shape
        torch.Size([3, 2])
    """
    blocks = [_arrange(tensors[part.ours], _backwards(part.axes), sizes) for part in weight.parts]
    tensor = blocks[0] if len(blocks) == 1 else torch.cat(blocks)
    if weight.first:
        tensor = _arrange(tensor, _backwards(weight.first), sizes)
    if weight.times:
        tensor = tensor / factor
    if weight.offset:
        tensor = tensor - weight.offset
    if weight.skip_rows:
        tensor = torch.cat([tensor.new_zeros(weight.skip_rows, *tensor.shape[1:]), tensor])
    return tensor


def _backwards(pattern: str) -> str:
    left, right = pattern.split("->")
    return f"{right.strip()} -> {left.strip()}"


def _names(text: str) -> set[str]:
    return set(re.findall(r"[a-z]\w*", text))


def _arrange(tensor: Tensor, pattern: str, sizes: Sizes) -> Tensor:
    arranged: Tensor = rearrange(tensor, pattern, **{name: sizes[name] for name in _names(pattern)})
    return arranged


def _lengths(side: str, sizes: Sizes) -> tuple[int, ...]:
    axes = re.findall(r"\(([^)]*)\)|(\S+)", side)
    return tuple(math.prod(_length(name, sizes) for name in (group or single).split()) for group, single in axes)


def _length(name: str, sizes: Sizes) -> int:
    return int(name) if name.isdigit() else sizes[name]


def _rows(part: Part, sizes: Sizes) -> int:
    return math.prod(_length(name, sizes) for name in part.rows)
