"""Which of several CUDA devices to use: by free memory, or by layer."""

from __future__ import annotations

from typing import Any

import torch

from transformer_lens.errors import TransformerLensError

AvailableDeviceMemory = list[tuple[int, int]]
"""Pairs (device index, free bytes)."""


class NoCudaDeviceError(TransformerLensError, RuntimeError):
    """A CUDA device was asked for, and there is none."""


def calculate_available_device_cuda_memory(i: int) -> int:
    """The bytes of CUDA device i that no process has taken."""
    return int(torch.cuda.mem_get_info(i)[0])


def determine_available_memory_for_available_devices(max_devices: int) -> AvailableDeviceMemory:
    """The free memory of each CUDA device, of the first max_devices at most.

    Example:
        >>> determine_available_memory_for_available_devices(0)
        []
    """
    count = min(max_devices, torch.cuda.device_count())
    return [(i, calculate_available_device_cuda_memory(i)) for i in range(count)]


def sort_devices_based_on_available_memory(devices: AvailableDeviceMemory) -> AvailableDeviceMemory:
    """The devices, the one with most free memory first.

    Example:
        >>> sort_devices_based_on_available_memory([(0, 5), (1, 9)])
        [(1, 9), (0, 5)]
    """
    return sorted(devices, key=lambda device: device[1], reverse=True)


def get_best_available_cuda_device(max_devices: int | None = None) -> torch.device:
    """The CUDA device with most free memory, of the first max_devices (None: of all).

    Raises:
        NoCudaDeviceError: there is none.
    """
    devices = determine_available_memory_for_available_devices(max_devices or torch.cuda.device_count())
    if not devices:
        raise NoCudaDeviceError("There is no CUDA device here; use device='cpu'.")
    return torch.device("cuda", sort_devices_based_on_available_memory(devices)[0][0])


def get_best_available_device(cfg: Any) -> torch.device:
    """cfg.device; where that is "cuda" without a number, the CUDA device with most free memory of cfg.n_devices.

    Raises:
        ValueError: cfg.device is None.

    Example:
        >>> from types import SimpleNamespace
        >>> get_best_available_device(SimpleNamespace(device="cpu"))
        device(type='cpu')
    """
    if cfg.device is None:
        raise ValueError("cfg.device is None: set it, or build the model, which sets it.")
    device = torch.device(cfg.device)
    bare = device.type == "cuda" and device.index is None
    return get_best_available_cuda_device(cfg.n_devices) if bare else device


def get_device_for_block_index(index: int, cfg: Any, device: torch.device | str | None = None) -> torch.device:
    """The device of layer `index`, where the layers are spread in order over cfg.n_devices.

    Args:
        index: the layer.
        cfg: says n_layers, n_devices and device.
        device: the first device; None: cfg.device.

    Example:
        >>> from types import SimpleNamespace
        >>> cfg = SimpleNamespace(n_layers=4, n_devices=2, device="cuda")
        >>> [get_device_for_block_index(layer, cfg).index for layer in range(4)]
        [0, 0, 1, 1]
    """
    first = torch.device(cfg.device if device is None else device)
    if first.type != "cuda" or cfg.n_devices == 1:
        return first
    return torch.device("cuda", (first.index or 0) + index * cfg.n_devices // cfg.n_layers)
