"""Where the parts of a placed model are, and the dtype of its numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

OFFLOADED = ("cpu", "disk", "meta")


def is_mixed_offload_gpu(values: Iterable[Any]) -> bool:
    """Whether the places of a device map name both an accelerator and somewhere else (CPU, disk).

    Args:
        values: places as a device map has them: numbers of GPUs, names, devices.

    Example:
        >>> is_mixed_offload_gpu([0, "cpu"]), is_mixed_offload_gpu([0, "cuda:1"]), is_mixed_offload_gpu(["cpu", "disk"])
        (True, False, False)
    """
    away = {str(value).partition(":")[0] in OFFLOADED for value in values}
    return away == {True, False}


def count_unique_devices(hf_model: nn.Module) -> int:
    """On how many devices the parameters and buffers of a module are (what is kept on disk counts as one, "meta").

    Example:
        >>> count_unique_devices(nn.Linear(2, 2))
        1
    """
    return len({tensor.device for tensor in (*hf_model.parameters(), *hf_model.buffers())})


def find_embedding_device(hf_model: Any) -> torch.device | None:
    """The device that a transformers model embeds tokens on; None: it has no token embeddings with weights.

    Example:
        >>> from transformers import GPT2Config, GPT2Model
        >>> find_embedding_device(GPT2Model(GPT2Config(n_layer=0, n_embd=12, vocab_size=5)))
        device(type='cpu')
    """
    embeddings = hf_model.get_input_embeddings()
    weights = [] if embeddings is None else list(embeddings.parameters())
    return weights[0].device if weights else None


@torch.no_grad()
def cast_floating_params_to_dtype(model: nn.Module, dtype: torch.dtype) -> None:
    """Nothing; afterwards every floating-point parameter has this dtype. Buffers and whole numbers stay as they are.

    Raises:
        ValueError: a dtype that is not floating-point.

    Example:
        >>> layer = nn.BatchNorm1d(2)
        >>> cast_floating_params_to_dtype(layer, torch.float64)
        >>> layer.weight.dtype, layer.running_mean.dtype
        (torch.float64, torch.float32)
    """
    if not dtype.is_floating_point:
        raise ValueError(f"Parameters are cast to a floating-point dtype; got {dtype}.")
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
