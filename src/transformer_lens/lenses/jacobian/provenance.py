"""Where a Jacobian lens comes from: what a fit says of itself, and whether a lens is of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformer_lens import __version__
from transformer_lens.models.protocols import TransformerLensModelWithWeights
from transformer_lens.specs.names import alias_map


def said_by_fit(model: Any, **settings: Any) -> dict[str, Any]:
    """What a fit says of the model, of itself and of its settings, under the names of published lenses."""
    return {
        "model_name": model.cfg.model_name,
        "model_system": type(model).__name__,
        "processing": {"normalization_type": model.cfg.normalization_type},
        "fit_dtype": str(model.cfg.dtype).removeprefix("torch."),
        "transformer_lens_version": __version__,
        "transformer_lens_fit": True,
        "estimator": "jacobian_lens",
        "hook_convention": "blocks.{layer}.hook_out",
        "target_layer": model.cfg.n_layers - 1,
        **settings,
    }


def with_notes(said: dict[str, Any], notes: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a fit says, and what its caller adds.

    Raises:
        ValueError: they add what the fit says itself, or what a file cannot hold.
    """
    own = sorted(set(notes or {}) & said.keys())
    if own:
        raise ValueError(f"metadata may not say what the fit says itself: {', '.join(own)}.")
    found = dict(notes or {}) | said
    check_metadata(found)
    return found


def check_metadata(value: Any, where: str = "metadata") -> None:
    """Raises a ValueError unless a value is made of None, bool, int, float, str, lists, tuples and dicts by str."""
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        for name, entry in value.items():
            check_metadata(entry, f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for number, entry in enumerate(value):
            check_metadata(entry, f"{where}[{number}]")
    elif value is not None and not isinstance(value, bool | int | float | str):
        raise ValueError(
            f"{where} is a {type(value).__name__}; a file holds None, bool, int, float, str, lists, tuples, and dicts "
            "with text as keys."
        )


def merged_metadata(all_said: Sequence[Mapping[str, Any]], n_prompts: int) -> dict[str, Any]:
    """What lenses of several slices of prompts say together.

    Raises:
        ValueError: they say different things of anything but the number of prompts.
    """
    first = all_said[0]
    names = dict.fromkeys(name for said in all_said for name in said if name != "n_prompts")
    different = [name for name in names if any(said.get(name) != first.get(name) for said in all_said)]
    if different:
        raise ValueError(
            f"The lenses say different things of {', '.join(different)}: "
            f"{[{name: said.get(name) for name in different} for said in all_said]}. Only fits of the same model with "
            "the same settings have a mean."
        )
    return {**first, "n_prompts": n_prompts} if first else {}


def check_model(model: Any, *, d_model: int, layers: Sequence[int], metadata: Mapping[str, Any]) -> None:
    """Raises a ValueError where a lens cannot be of a model: its width, layers, name or the layer it leads to."""
    if not isinstance(model, TransformerLensModelWithWeights):
        raise TypeError(
            f"A lens reads a HookedTransformer or a TransformerBridge; got a {type(model).__name__}. Wrap it: "
            "TransformerBridge.boot_transformers(hf_model=model)."
        )
    config: Any = model.cfg
    n_layers = config.n_layers
    if d_model != config.d_model:
        raise ValueError(f"This lens is of width {d_model}, the model of width {config.d_model}.")
    beyond = [layer for layer in layers if not 0 <= layer < n_layers - 1]
    if beyond:
        raise ValueError(
            f"This lens has layers {beyond}; this model has outputs of blocks before its last from 0 to {n_layers - 2}."
        )
    target = metadata.get("target_layer")
    if target is not None and target != n_layers - 1:
        raise ValueError(f"This lens leads to the output of block {target}; this model's last is {n_layers - 1}.")
    fitted, given = metadata.get("model_name"), config.model_name
    if fitted and given and _official(fitted) != _official(given):
        raise ValueError(
            f"This lens was fitted to {fitted!r}; the model is {given!r}. If they have the same weights, set "
            "lens.metadata['model_name']."
        )


def _official(name: str) -> str:
    """A model's name without its owner, which HookedTransformer leaves out, too."""
    return alias_map().get(name.lower(), name).rsplit("/", 1)[-1].lower()
