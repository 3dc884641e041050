"""Patchscopes: what a residual of one prompt says, told by the model itself inside another prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transformer_lens import viz
from transformer_lens.lenses.runs import decoder, sample, stream_names, token_rows

Mapping = Callable[[Float[Tensor, "d_model"], int], Float[Tensor, "d_model"]]


@dataclass(frozen=True)
class Patchscope:
    """What the model says after the target prompt, for each layer that the residual was taken from.

    Attributes:
        layers: the layers whose input was taken (n_layers: the final stream).
        target_layers: the layers before which each was put.
        log_probs: of the next token after the target prompt, in nats.
        texts: how the model goes on after the target prompt; empty where no new tokens were asked for.
        decode: what turns an id into text.
    """

    layers: list[int]
    target_layers: list[int]
    log_probs: Float[Tensor, "row d_vocab"]
    texts: list[str]
    decode: Callable[[int], str] = field(repr=False)

    def top_tokens(self, k: int = 5) -> list[list[str]]:
        """The k likeliest next tokens of each row, best first."""
        return [[self.decode(token) for token in row] for row in self.log_probs.topk(k).indices.tolist()]

    def table(self, k: int = 5) -> list[dict[str, Any]]:
        """One dict for each row (layer, target_layer, top, probabilities, text), for pandas or JSON."""
        best = self.log_probs.topk(k).values.exp().tolist()
        texts = self.texts or [""] * len(self.layers)
        columns = zip(self.layers, self.target_layers, self.top_tokens(k), best, texts, strict=True)
        names = ("layer", "target_layer", "top", "probabilities", "text")
        return [dict(zip(names, row, strict=True)) for row in columns]

    def picture(self, k: int = 5, title: str = "Patchscope") -> viz.Picture:
        """The likeliest next tokens by layer, coloured by their probability."""
        return viz.logit_lens_table(
            self.top_tokens(k), self.log_probs.topk(k).values.exp(), [str(rank) for rank in range(k)],
            layer_labels=[str(layer) for layer in self.layers], title=title, value_name="probability",
            scale="sequential", axes=("source layer", "rank"),
        )  # fmt: skip

    def _repr_html_(self) -> str:
        return self.picture().html()


@torch.no_grad()
def patchscope(
    model: Any,
    source: str | Int[Tensor, "source_pos"],
    target: str | Int[Tensor, "target_pos"],
    *,
    layers: Sequence[int] | None = None,
    position: int = -1,
    target_layer: int | None = None,
    target_position: int = -1,
    mapping: Mapping | None = None,
    max_new_tokens: int = 0,
) -> Patchscope:
    """What the model predicts after `target` when a residual of `source` stands in it.

    For each source layer, the stream entering it at one position of the source prompt replaces the stream entering the
    target layer at one position of the target prompt. All source layers run together, as the rows of one batch.
    Source: Ghandeharioun et al., "Patchscopes: A Unifying Framework for Inspecting Hidden Representations of Language
    Models", 2024, arXiv 2401.06102.

    Args:
        model: the model, on either host.
        source: the prompt that is read.
        target: the prompt that makes the model tell.
        layers: source layers, n_layers being the final stream; None: all.
        position: in the source prompt; negative: from its end.
        target_layer: before which layer of the target run it is put; None: the layer it came from.
        target_position: in the target prompt; negative: from its end.
        mapping: what is done to a residual on the way, given with its source layer (an affine map, a `TunedLens`).
        max_new_tokens: how many tokens the model writes after the target prompt, the likeliest each time.

    Raises:
        ValueError: a layer that does not exist, or more than one prompt.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> scope = patchscope(model, "The Eiffel Tower is in", "The Colosseum is in", max_new_tokens=2)
        >>> scope.top_tokens(1)[0], scope.top_tokens(1)[-1], scope.texts[-1]
        ([' Rome'], [' Paris'], ' Paris.')
    """
    n_layers = model.cfg.n_layers
    wanted = list(range(n_layers + 1)) if layers is None else list(layers)
    placed = [layer if target_layer is None else target_layer for layer in wanted]
    for layer in (*wanted, *placed):
        if not 0 <= layer <= n_layers:
            raise ValueError(f"Layers are from 0 to {n_layers} ({n_layers}: the final stream); got {layer}.")
    prompt, told = token_rows(model, source), token_rows(model, target)
    if len(prompt) != 1 or len(told) != 1:
        raise ValueError(f"source and target are one prompt each; got {len(prompt)} and {len(told)}.")
    names = stream_names(n_layers)
    cache = sample(model, prompt, [names[layer] for layer in wanted]).cache
    residuals = [cache[names[layer]][0, position] for layer in wanted]
    if mapping is not None:
        residuals = [mapping(residual, layer) for residual, layer in zip(residuals, wanted, strict=True)]
    rows = told.expand(len(wanted), -1)
    with model.hooks(fwd_hooks=_writers(names, placed, residuals, target_position)):
        log_probs = model(rows)[:, -1].float().log_softmax(-1)
    texts: list[str] = []
    if max_new_tokens:
        with model.hooks(fwd_hooks=_writers(names, placed, residuals, target_position)):
            written = model.generate(
                rows, max_new_tokens, do_sample=False, return_type="tokens", stop_at_eos=False, verbose=False
            )
        texts = ["".join(map(decoder(model), row[told.shape[1] :].tolist())) for row in written]
    return Patchscope(wanted, placed, log_probs, texts, decoder(model))


def _writers(names: list[str], placed: list[int], residuals: list[Tensor], position: int) -> list[tuple[str, Any]]:
    """One hook for each target layer, which writes its rows' residuals in the first pass it sees.

    NOTE: generation keeps keys and values, so that its later passes see new tokens alone, at position 0.
    """

    def writer(rows: list[int]) -> Callable[..., Tensor | None]:
        done = False

        def write(stream: Float[Tensor, "batch pos d_model"], hook: Any) -> Tensor | None:
            nonlocal done
            if done:
                return None
            done = True
            edited = stream.clone()
            edited[rows, position] = torch.stack([residuals[row] for row in rows]).to(stream)
            return edited

        return write

    layers = sorted(set(placed))
    return [(names[layer], writer([row for row, where in enumerate(placed) if where == layer])) for layer in layers]
