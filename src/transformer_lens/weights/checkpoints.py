"""Where tensors come from: safetensors or .bin files, mapped into memory, or a model that is there already."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open
from torch import Tensor

from transformer_lens.errors import TransformerLensError


class CheckpointError(TransformerLensError, ValueError):
    """A checkpoint that is incomplete, damaged or of another shape; nothing was loaded."""


class TensorSource(Protocol):
    """Named tensors."""

    @property
    def lends(self) -> bool:
        """Whether what is read may become a parameter as it is, without a copy."""

    def names(self) -> list[str]:
        """The names of all tensors."""

    def read(self, name: str) -> Shaped[Tensor, "..."]:
        """The tensor of this name."""

    def where(self, name: str) -> str:
        """Which file or model holds it, for messages."""


class InMemory:
    """The tensors of a state dict; reading gives them themselves, not copies."""

    lends = True

    def __init__(self, tensors: Mapping[str, Tensor], label: str):
        self.tensors = tensors
        self.label = label

    def names(self) -> list[str]:
        """The names of all tensors."""
        return list(self.tensors)

    def read(self, name: str) -> Shaped[Tensor, "..."]:
        """The tensor itself."""
        return self.tensors[name].detach()

    def where(self, name: str) -> str:
        """Whose tensors these are."""
        return self.label


class SafetensorsFiles:
    """The tensors of safetensors files, mapped into memory privately: nothing is read before it is used.

    What is written to such a tensor stays in this process; the file does not change. A tensor that is read twice is
    mapped twice, so that what is written to one does not show in the other.

    Raises:
        CheckpointError: a file is truncated or is no safetensors file.
    """

    # NOTE: Windows cannot delete or replace a file that is mapped.
    lends = os.name != "nt"

    def __init__(self, files: list[Path]):
        self.paths = files
        self.opened = [_open_safetensors(path) for path in files]
        self.files = {name: number for number, handle in enumerate(self.opened) for name in handle.keys()}  # noqa: SIM118
        self.lent: set[str] = set()

    def names(self) -> list[str]:
        """The names of all tensors."""
        return list(self.files)

    def read(self, name: str) -> Shaped[Tensor, "..."]:
        """The tensor, a view of the mapped file."""
        number = self.files[name]
        handle = _open_safetensors(self.paths[number]) if name in self.lent else self.opened[number]
        self.lent.add(name)
        tensor: Tensor = handle.get_tensor(name)
        return tensor

    def where(self, name: str) -> str:
        """The file."""
        return str(self.paths[self.files[name]])


def _open_safetensors(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be read as safetensors ({error}); its size is {path.stat().st_size} bytes. It may be "
            "truncated: fetch it again."
        ) from error


def open_folder(folder: Path) -> TensorSource:
    """The tensors in a folder: safetensors if there are any, else .bin files, read with weights_only.

    Raises:
        CheckpointError: there are no weights, a shard that the index names is missing, or a file is damaged.
    """
    for index_name, single in (
        ("model.safetensors.index.json", "model.safetensors"),
        ("pytorch_model.bin.index.json", "pytorch_model.bin"),
    ):
        files = _files_of(folder, index_name, single)
        if files and single.endswith(".safetensors"):
            return SafetensorsFiles(files)
        if files:
            return InMemory(_read_bin(files), str(files[0]) if len(files) == 1 else str(folder))
    present = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
    raise CheckpointError(
        f"{folder} holds no weights: neither model.safetensors nor pytorch_model.bin, nor an index of shards. "
        f"It holds: {present}."
    )


def _files_of(folder: Path, index_name: str, single: str) -> list[Path]:
    index = folder / index_name
    if not index.is_file():
        return [folder / single] if (folder / single).is_file() else []
    names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise CheckpointError(f"{index} names {', '.join(missing)}, which {folder} does not hold.")
    return [folder / name for name in names]


def _read_bin(files: list[Path]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for path in files:
        try:
            tensors.update(torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)))
        except (RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
            raise CheckpointError(f"{path} cannot be read as tensors only ({error}).") from error
    return tensors
