"""Where the parts of a placed model are, and the dtype of its numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from transformer_lens.config.quantization import quantization_method
from transformer_lens.errors import ConfigurationError

DeviceMap = str | dict[str, Any] | None
MaxMemory = dict[Any, Any] | None

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


def maybe_cast_floating_params(model: nn.Module, dtype: torch.dtype) -> None:
    """Nothing; afterwards floating-point parameters have this dtype, unless the model is quantised: then none changes.

    A quantised model's dtypes are its quantiser's (scales, what it left alone), and a cast would break them.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> maybe_cast_floating_params(layer, torch.float64)
        >>> layer.weight.dtype
        torch.float64
    """
    if quantization_method(model.__dict__.get("config")) is None:
        cast_floating_params_to_dtype(model, dtype)


def find_misplaced_modules(hf_model: nn.Module) -> list[tuple[str, str, str]]:
    """Triples (module, where its map says, where it is), for modules whose parameters are on another device.

    A map that splits tied weights does that: a tensor has one place. Parameters kept away (cpu offload shows as meta,
    disk) are fetched when needed, and never misplaced.

    Args:
        hf_model: a model with an `hf_device_map`; of one without, nothing is misplaced.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2))
        >>> model.hf_device_map = {"0": "cuda:1"}
        >>> find_misplaced_modules(model)
        [('0', 'cuda:1', 'cpu')]
    """
    places: Mapping[str, Any] = hf_model.__dict__.get("hf_device_map", {})
    found = []
    for name, place in places.items():
        if str(place) in ("disk", "meta"):
            continue
        wanted = torch.device("cuda", place) if isinstance(place, int) else torch.device(place)
        parameters = [parameter for path, parameter in hf_model.named_parameters(remove_duplicate=False)
                      if f"{path}.".startswith(f"{name}." if name else "")]  # fmt: skip
        away = [p.device for p in parameters if not p.is_meta and not _same(p.device, wanted)]
        found += [(name, str(place), str(device)) for device in dict.fromkeys(away)]
    return found


def _same(device: torch.device, wanted: torch.device) -> bool:
    return device.type == wanted.type and (device.index or 0) == (wanted.index or 0)


def resolve_device_map(
    n_devices: int | None,
    device_map: DeviceMap,
    device: str | torch.device | None,
    max_memory: MaxMemory = None,
) -> tuple[DeviceMap, MaxMemory]:
    """The pair (device_map, max_memory) for transformers' from_pretrained; (None, None): the model goes to one device.

    Args:
        n_devices: spread the layers evenly over the first so many CUDA devices; the budget of each is its free memory,
            unless max_memory says another. None or 1: no spreading.
        device_map: as transformers takes it; it is passed on.
        device: one device, which excludes the others.
        max_memory: bytes, or "10GB", by device.

    Raises:
        ConfigurationError: two of them say where the model goes; there are not so many devices; or max_memory alone,
            which would have no effect.

    Example:
        >>> resolve_device_map(None, "auto", None, {0: "10GB"}), resolve_device_map(1, None, "cpu")
        (('auto', {0: '10GB'}), (None, None))
    """
    spread = n_devices is not None and n_devices > 1
    if spread and device_map is not None:
        raise ConfigurationError("n_devices and device_map both say where the model goes; give one.")
    if device is not None and (spread or device_map is not None):
        raise ConfigurationError(
            "device and device_map (or n_devices) both say where the model goes; give one of them."
        )
    if not spread or n_devices is None:
        if max_memory is not None and device_map is None:
            raise ConfigurationError("max_memory has no effect without device_map or n_devices.")
        return device_map, max_memory
    there = torch.cuda.device_count()
    if n_devices > there:
        raise ConfigurationError(f"n_devices={n_devices}, and there are {there} CUDA devices here.")
    return "balanced", max_memory or {index: torch.cuda.mem_get_info(index)[0] for index in range(n_devices)}
