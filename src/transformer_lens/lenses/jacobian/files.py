"""Files of Jacobian lenses: safetensors, which are written, and the .pt of other packages, which are read too."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from transformer_lens.errors import UnknownNameError
from transformer_lens.models.hub import fetch_file, list_files

COLLECTION = "neuronpedia/jacobian-lens"
EMBEDDING = "embedding"
OF_A_FIT = {
    *("transformer_lens_fit", "transformer_lens_version", "model_system", "processing", "hook_convention"),
    *("fit_dtype", "dim_batch", "max_seq_len", "skip_first_positions"),
}
"""What a fit of this library says of itself; of a checkpoint that another program wrote it is not taken over."""


@dataclass(frozen=True)
class Stored:
    """What a file holds: see `JacobianLens`."""

    jacobians: dict[int, Float[Tensor, "d_model d_model"]]
    n_prompts: int
    d_model: int
    metadata: dict[str, Any] = field(default_factory=dict)
    embedding: Float[Tensor, "d_model d_model"] | None = None


def write(path: str | PathLike[str], stored: Stored, dtype: torch.dtype) -> None:
    """Write a lens as one safetensors file: "J.<layer>", "embedding", and the rest as JSON in its header."""
    if Path(path).suffix in (".pt", ".pth", ".bin"):
        warnings.warn(
            f"{Path(path).name} is written as safetensors whatever its name, and only this library reads that: name it "
            f"{Path(path).stem}.safetensors.",
            stacklevel=3,
        )
    tensors = {f"J.{layer}": matrix for layer, matrix in stored.jacobians.items()}
    if stored.embedding is not None:
        tensors[EMBEDDING] = stored.embedding
    about = {"n_prompts": stored.n_prompts, "d_model": stored.d_model, "metadata": stored.metadata}
    held = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
    save_file(held, path, metadata={name: json.dumps(value) for name, value in about.items()})


def read(path: str | PathLike[str]) -> Stored:
    """What a file holds: safetensors, or a .pt with plain tensors (an artifact, or a checkpoint of a fit).

    Raises:
        ValueError: it is not of a Jacobian lens, or lacks something.
        FileNotFoundError: there is no such file.
    """
    with Path(path).open("rb") as file:
        is_safetensors = file.read(9)[8:] == b"{"
    if is_safetensors:
        return _safetensors(path)
    payload = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(payload, dict) and "J" in payload:
        return _artifact(path, payload)
    if isinstance(payload, dict) and "jacobian_sum" in payload:
        return _checkpoint(path, payload)
    keys = list(payload) if isinstance(payload, dict) else type(payload).__name__
    raise ValueError(
        f"{path} holds {keys}. A Jacobian lens has matrices under J (with n_prompts and d_model), a checkpoint of its "
        "fit has their sums under jacobian_sum (with n_done)."
    )


def _safetensors(path: str | PathLike[str]) -> Stored:
    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    names = ("n_prompts", "d_model", "metadata")
    _need(path, header, names)
    about = {name: json.loads(header[name]) for name in names}
    embedding = tensors.pop(EMBEDDING, None)
    jacobians = {int(name.removeprefix("J.")): matrix for name, matrix in tensors.items()}
    return Stored(jacobians, about["n_prompts"], about["d_model"], about["metadata"], embedding)


def _artifact(path: str | PathLike[str], payload: Mapping[str, Any]) -> Stored:
    _need(path, payload, ("n_prompts", "d_model"))
    jacobians = {int(layer): matrix for layer, matrix in payload["J"].items()}
    return Stored(jacobians, int(payload["n_prompts"]), int(payload["d_model"]), dict(payload.get("metadata") or {}))


def _checkpoint(path: str | PathLike[str], payload: Mapping[str, Any]) -> Stored:
    _need(path, payload, ("n_done",))
    count = int(payload["n_done"])
    if count < 1 or not payload["jacobian_sum"]:
        raise ValueError(f"{path} is a checkpoint of a fit with n_done={count} prompts: there is no mean to take.")
    jacobians = {int(layer): matrix.float() / count for layer, matrix in payload["jacobian_sum"].items()}
    said = dict(payload.get("metadata") or {})
    said |= {
        name: payload[name] for name in ("corpus", "model_name", "model_revision", "target_layer") if name in payload
    }
    metadata = {name: value for name, value in said.items() if name not in OF_A_FIT and not isinstance(value, Tensor)}
    dropped = [
        f"{name}: shape={tuple(value.shape)} dtype={value.dtype}"
        for name, value in said.items()
        if isinstance(value, Tensor)
    ]
    metadata |= {"converted_from": "jacobian_lens_checkpoint"} | ({"dropped_fields": dropped} if dropped else {})
    return Stored(jacobians, count, next(iter(jacobians.values())).shape[-1], metadata)


def _need(path: str | PathLike[str], holds: Mapping[str, Any], names: tuple[str, ...]) -> None:
    missing = [name for name in names if name not in holds]
    if missing:
        raise ValueError(f"{path} is not a whole Jacobian lens: it has no {', '.join(missing)}; it has {list(holds)}.")


def find(name: str, filename: str, revision: str | None) -> Path:
    """The local path of a lens: a file, a file in a folder, or one that is fetched from the hub.

    A folder without `filename` may hold it as safetensors. A name without an owner is looked for in the collection of
    published lenses on the hub, as is that of a model whose repository has no such file.

    Raises:
        FileNotFoundError: the folder has no lens, or a path leads nowhere.
        UnknownNameError: the hub has no such lens.
        HubError, GatedModelError: as for models.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        choices = [path / filename, (path / filename).with_suffix(".safetensors")]
        for choice in choices:
            if choice.is_file():
                return choice
        there = sorted(file.name for file in path.iterdir())
        raise FileNotFoundError(f"{path} has no {filename}, nor as .safetensors; it has {there}. Give filename=.")
    if (
        path.is_absolute()
        or name.startswith((".", "~"))
        or name.count("/") > 1
        or path.suffix in (".pt", ".safetensors")
    ):
        raise FileNotFoundError(f"There is no file or folder {name}.")
    arguments = {} if revision is None else {"revision": revision}
    if "/" in name and filename in list_files(name, **arguments):
        return fetch_file(name, filename, **arguments)
    return fetch_file(COLLECTION, published(name, list_files(COLLECTION, **arguments)), **arguments)


def published(name: str, files: list[str]) -> str:
    """Which file of the collection is a model's lens: that in a folder, or with a beginning, of its name.

    Raises:
        UnknownNameError: there is none, or more than one.

    Example:
        >>> published("google/gemma-2-2b", ["gemma-2-2b/jlens/wiki/gemma-2-2b_jacobian_lens.pt", "README.md"])
        'gemma-2-2b/jlens/wiki/gemma-2-2b_jacobian_lens.pt'
    """
    wanted = name.rsplit("/", 1)[-1].lower()
    lenses = [file for file in files if "_jacobian_lens" in file and file.endswith(".pt")]
    folders = [file for file in lenses if file.split("/")[0].lower() == wanted]
    found = folders or [file for file in lenses if Path(file).name.lower().startswith(f"{wanted}_jacobian_lens")]
    if len(found) == 1:
        return found[0]
    said = f"of {name} there are several: {', '.join(found)}" if found else f"there is none of {name}"
    names = sorted({file.split("/")[0] for file in lenses})
    raise UnknownNameError(
        f"{COLLECTION} has lenses of {', '.join(names)}; {said}. Give that repository's name and filename=."
    )
