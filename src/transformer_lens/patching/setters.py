"""Patch setters: functions that put a part of a clean activation into a corrupted one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

Setter = Callable[[Tensor, Sequence[int], Tensor], Tensor]


def layer_pos_patch_setter(corrupted_activation: Tensor, index: Sequence[int], clean_activation: Tensor) -> Tensor:
    """The activation [batch, pos, ...] with the clean one at index = (layer, pos)."""
    _, pos = index
    corrupted_activation[:, pos] = clean_activation[:, pos]
    return corrupted_activation


def layer_pos_head_vector_patch_setter(
    corrupted_activation: Tensor, index: Sequence[int], clean_activation: Tensor
) -> Tensor:
    """The activation [batch, pos, head, d_head] with the clean one at index = (layer, pos, head)."""
    _, pos, head = index
    corrupted_activation[:, pos, head] = clean_activation[:, pos, head]
    return corrupted_activation


def layer_head_vector_patch_setter(
    corrupted_activation: Tensor, index: Sequence[int], clean_activation: Tensor
) -> Tensor:
    """The activation [batch, pos, head, d_head] with the clean one at index = (layer, head)."""
    _, head = index
    corrupted_activation[:, :, head] = clean_activation[:, :, head]
    return corrupted_activation


def layer_head_pattern_patch_setter(
    corrupted_activation: Tensor, index: Sequence[int], clean_activation: Tensor
) -> Tensor:
    """The pattern [batch, head, query, key] with the clean one at index = (layer, head)."""
    _, head = index
    corrupted_activation[:, head] = clean_activation[:, head]
    return corrupted_activation


def layer_head_pos_pattern_patch_setter(
    corrupted_activation: Tensor, index: Sequence[int], clean_activation: Tensor
) -> Tensor:
    """The pattern [batch, head, query, key] with the clean one at index = (layer, head, query)."""
    _, head, query = index
    corrupted_activation[:, head, query] = clean_activation[:, head, query]
    return corrupted_activation


def layer_head_dest_src_pos_pattern_patch_setter(
    corrupted_activation: Tensor, index: Sequence[int], clean_activation: Tensor
) -> Tensor:
    """The pattern [batch, head, query, key] with the clean one at index = (layer, head, query, key)."""
    _, head, query, key = index
    corrupted_activation[:, head, query, key] = clean_activation[:, head, query, key]
    return corrupted_activation


# What the entries of an index after the layer mean to a setter, as fields of an Intervention; such patches are planned.
PLANNED: Mapping[Setter, tuple[str, ...]] = {
    layer_pos_patch_setter: ("pos",),
    layer_pos_head_vector_patch_setter: ("pos", "head"),
    layer_head_vector_patch_setter: ("head",),
    layer_head_pattern_patch_setter: ("head",),
    layer_head_pos_pattern_patch_setter: ("head", "pos"),
    layer_head_dest_src_pos_pattern_patch_setter: ("head", "pos", "neuron"),
}
