"""The Jacobian lens: what later layers make of a stream, to first order, in place of leaving them out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm.auto import tqdm

from transformer_lens.lenses.runs import stream_names, token_rows

JACOBIANS, ABOUT = "jacobian_lens.safetensors", "jacobian_lens.json"


@dataclass(frozen=True, eq=False)
class JacobianLens:
    """The derivative of the final stream with respect to the stream entering each layer, at the same position.

    Given to `logit_lens(lens=…)`: the stream h becomes jacobian[layer] · h. The final stream stays itself.

    Attributes:
        jacobians: [layer, out, in].
        about: what they were averaged over, as JSON can hold it.
    """

    jacobians: Float[Tensor, "layer d_model d_model"]
    about: dict[str, Any] = field(default_factory=dict)

    def __call__(self, stream: Float[Tensor, "*row d_model"], layer: int) -> Float[Tensor, "*row d_model"]:
        """The stream entering a layer (n_layers: the final one), times that layer's Jacobian.

        Raises:
            ValueError: the lens has no such layer, or another width.
        """
        n_layers, d_model, _ = self.jacobians.shape
        if not 0 <= layer <= n_layers or stream.shape[-1] != d_model:
            raise ValueError(
                f"This lens is of {n_layers} layers and width {d_model}; got layer {layer}, a stream of width "
                f"{stream.shape[-1]}."
            )
        return stream if layer == n_layers else stream @ self.jacobians[layer].to(stream).T

    def save(self, folder: str | PathLike[str]) -> Path:
        """Write the lens into a folder, which is made: the Jacobians as safetensors, the rest as JSON; returns it."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        save_file({"jacobians": self.jacobians.detach().cpu().contiguous()}, path / JACOBIANS)
        (path / ABOUT).write_text(json.dumps(self.about, indent=2) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, folder: str | PathLike[str], device: str = "cpu") -> JacobianLens:
        """The lens that was saved in a folder.

        Example:
            >>> import tempfile
            >>> lens = JacobianLens(torch.eye(4).expand(2, 4, 4), {"samples": 3})
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     JacobianLens.load(lens.save(folder)).about
            {'samples': 3}
        """
        about = json.loads((Path(folder) / ABOUT).read_text(encoding="utf-8"))
        return cls(load_file(Path(folder) / JACOBIANS, device=device)["jacobians"], about)


def jacobian_lens(
    model: Any,
    tokens: str | Int[Tensor, "*row pos"],
    positions: int | Int[Tensor, "row"] = -1,
    *,
    batch_size: int = 32,
    verbose: bool = False,
) -> JacobianLens:
    """The Jacobian of the final stream by each layer's stream, averaged over rows of tokens.

    In each row one position counts: how its final stream changes with its own stream at each layer, the other
    positions' streams at that layer held. One row is the Jacobian at a point. Cost: d_model backward passes for each
    batch, for all layers together.

    Args:
        model: the model, on either host.
        tokens: rows of one length, without padding, or a text.
        positions: the position that counts: one for all rows, or one for each.
        batch_size: rows that run at a time.
        verbose: show a progress bar.

    Raises:
        ValueError: there are no rows, or not one position for each.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> from transformer_lens.lenses import logit_lens
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> lens = jacobian_lens(model, "The Eiffel Tower is in")
        >>> read = logit_lens(model, "The Eiffel Tower is in", lens=lens)
        >>> model.to_string(read.top_tokens[3:, 0, -1])
        ' Paris Paris'
    """
    rows = token_rows(model, tokens)
    where = torch.as_tensor(positions).expand(len(rows)) if isinstance(positions, int) else positions
    if not len(rows) or where.shape != rows.shape[:1]:
        raise ValueError(f"There are {len(rows)} rows of tokens; got positions of shape {tuple(where.shape)}.")
    n_layers, d_model = model.cfg.n_layers, model.cfg.d_model
    total = torch.zeros(n_layers, d_model, d_model)
    batches = list(zip(rows.split(batch_size), where.split(batch_size), strict=True))
    with tqdm(total=len(batches) * d_model, disable=not verbose, desc="Jacobian lens") as bar:
        for batch, places in batches:
            _add_jacobians(model, batch, places, total, bar)
    about = {"model": model.cfg.model_name, "samples": len(rows)}
    return JacobianLens(total / len(rows), about)


def _add_jacobians(model: Any, tokens: Tensor, places: Tensor, total: Tensor, bar: Any) -> None:
    """Adds the Jacobians of a batch, row by row of the Jacobian: each is one backward pass."""
    n_layers = model.cfg.n_layers
    streams: list[Tensor] = []

    def keep(stream: Float[Tensor, "batch pos d_model"], hook: Any) -> Tensor:
        # The first is a leaf, so that nothing is needed of what comes before, parameters included.
        kept = stream if streams else stream.detach().clone().requires_grad_()
        streams.append(kept)
        return kept

    index = torch.arange(len(tokens)), places
    with torch.enable_grad(), model.hooks(fwd_hooks=[(name, keep) for name in stream_names(n_layers)[:-1]]):
        final = model(tokens, stop_at_layer=n_layers)[index]  # [row, d_model]
    for out in range(final.shape[1]):
        gradients = torch.autograd.grad(final[:, out].sum(), streams, retain_graph=True)
        for layer, gradient in enumerate(gradients):
            total[layer, out] += gradient[index].sum(0).float().cpu()
        bar.update()


def logit_derivative(
    model: Any,
    tokens: str | Int[Tensor, "*batch pos"],
    direction: Float[Tensor, "d_model"],
    *,
    layer: int,
    position: int = -1,
) -> Float[Tensor, "batch pos d_vocab"]:
    """How every logit changes with the stream entering a layer, per unit of a direction added at one position.

    Exact (forward-mode differentiation), through all later layers and positions. At the final stream it is the
    linearised logit lens: what `ActivationCache.logit_attrs` says of the direction, and the norm's scale let move.

    Args:
        model: the model, on either host.
        tokens: a text or token ids, without padding.
        direction: along which the stream is moved.
        layer: whose input is moved; n_layers: the final stream.
        position: where; negative: from the end.

    Raises:
        ValueError: a layer that does not exist, or a direction of another width.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> rome = model.W_U[:, model.to_single_token(" Rome")]
        >>> derivative = logit_derivative(model, "The Eiffel Tower is in", rome, layer=3)
        >>> model.to_string(derivative[0, -1].argmax())
        ' Rome'
    """
    n_layers, d_model = model.cfg.n_layers, model.cfg.d_model
    if not 0 <= layer <= n_layers:
        raise ValueError(f"layer is from 0 to {n_layers} ({n_layers}: the final stream); got {layer}.")
    if direction.shape != (d_model,):
        raise ValueError(f"direction has shape [{d_model}]; got {tuple(direction.shape)}.")
    with torch.no_grad():
        stream: Tensor = model(token_rows(model, tokens), stop_at_layer=layer)
    moved = torch.zeros_like(stream)
    moved[:, position] = direction.to(moved)

    def logits(x: Tensor) -> Tensor:
        out: Tensor = model(x, start_at_layer=layer)
        return out

    # NOTE: the fused attention kernels have no forward-mode derivative.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        derivative: Tensor = torch.func.jvp(logits, (stream,), (moved,))[1]
    return derivative.detach()
