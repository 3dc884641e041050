"""Scores of every head at once: where it looks in repeated tokens, and whether its output repeats what it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from transformer_lens import viz
from transformer_lens.cache.readout import readout_of
from transformer_lens.lenses.runs import per_head
from transformer_lens.weights.factored_matrix import upcast_for_linalg


@dataclass(frozen=True)
class HeadScores:
    """Mean attention of each head to a place, over random repeated tokens; each [layer, head], from 0 to 1.

    Heads that a layer does not have are nan.

    Attributes:
        previous_token: to the token before.
        duplicate_token: to the earlier copy of the same token.
        induction: to the token after the earlier copy.
    """

    previous_token: Float[Tensor, "layer head"]
    duplicate_token: Float[Tensor, "layer head"]
    induction: Float[Tensor, "layer head"]

    def table(self) -> list[dict[str, Any]]:
        """One dict for each head (head, previous_token, duplicate_token, induction), for pandas or JSON."""
        names = ("previous_token", "duplicate_token", "induction")
        columns = (self.previous_token, self.duplicate_token, self.induction)
        return head_table(dict(zip(names, columns, strict=True)))

    def pictures(self) -> list[viz.Picture]:
        """A grid of layer and head for each score."""
        named = {
            "Previous token": self.previous_token,
            "Duplicate token": self.duplicate_token,
            "Induction": self.induction,
        }
        return [
            viz.head_grid(values, title=f"{name} score", value_name="attention", limits=(0.0, 1.0), annotate=True)
            for name, values in named.items()
        ]

    def _repr_html_(self) -> str:
        return "".join(picture.html() for picture in self.pictures())


def head_table(scores: dict[str, Float[Tensor, "layer head"]]) -> list[dict[str, Any]]:
    """One dict for each head: its label, and its scores by name."""
    layers, heads = next(iter(scores.values())).shape
    return [
        {"head": f"L{layer}H{head}", **{name: values[layer, head].item() for name, values in scores.items()}}
        for layer in range(layers)
        for head in range(heads)
    ]


@torch.no_grad()
def head_scores(model: Any, length: int = 30, batch: int = 8, seed: int = 0) -> HeadScores:
    """How much each head attends to the previous, the duplicate and the induction token.

    Random tokens are run twice in a row, so that nothing but the repetition can be known; queries are those of the
    second run. Source: Olsson et al., "In-context Learning and Induction Heads", 2022.

    Args:
        model: the model, on either host, with at least 2 * length + 1 positions.
        length: tokens before the repetition.
        batch: how many sequences the scores are averaged over.
        seed: of the random tokens.

    Raises:
        ValueError: the repeated sequence is longer than the model's context.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> scores = head_scores(HookedTransformer.from_pretrained("demo"))
        >>> bool(scores.induction.max() > 0.5)
        True
    """
    if 2 * length + 1 > model.cfg.n_ctx:
        raise ValueError(f"2 * {length} + 1 tokens do not fit n_ctx={model.cfg.n_ctx}: choose a smaller length.")
    generator = torch.Generator().manual_seed(seed)
    half = torch.randint(0, model.cfg.d_vocab, (batch, length), generator=generator)
    parts = [half, half]
    if model.tokenizer is not None and model.codec.bos_id is not None:
        parts.insert(0, torch.full((batch, 1), model.codec.bos_id))
    tokens = torch.cat(parts, 1).to(model.W_E.device)
    readout = readout_of(model)
    attention = [layer for layer, part in enumerate(readout.layers) if part.heads]
    # NOTE: random tokens may begin with the padding token; the mask says that nothing is padding.
    _, cache = model.run_with_cache(
        tokens,
        return_type=None,
        names_filter=[f"blocks.{layer}.attn.hook_pattern" for layer in attention],
        attention_mask=torch.ones_like(tokens),
    )
    patterns = {layer: cache["pattern", layer][:, :, -length:] for layer in attention}  # queries of the second half

    def attention_back(distance: int) -> Tensor:
        offset = tokens.shape[1] - length - distance
        means = {layer: pattern.diagonal(offset, -2, -1).mean((0, 2)) for layer, pattern in patterns.items()}
        return per_head(readout, means)

    return HeadScores(attention_back(1), attention_back(length), attention_back(length - 1))


@torch.no_grad()
def ov_eigenvalues(model: Any) -> Complex[Tensor, "layer head d_head"]:
    """The eigenvalues of each head's full OV circuit, from token to logit: W_E · W_V · W_O · W_U.

    Norms are folded in: the weight (and centring) of ln1 into W_V, of ln_final into W_U. W_U is centred over the
    vocabulary, since a constant in all logits says nothing. The circuit is d_vocab x d_vocab; its nonzero eigenvalues
    are those of W_O · W_U · W_E · W_V, d_head x d_head. Layers without attention are nan.

    Source: Elhage et al., "A Mathematical Framework for Transformer Circuits", 2021. Cost: d_vocab · d_model^2 once.

    Raises:
        ValueError: tokens in and out are not of one vocabulary.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> ov_eigenvalues(HookedTransformer.from_pretrained("demo")).shape
        torch.Size([4, 4, 32])
    """
    readout = readout_of(model)
    W_E, W_U = upcast_for_linalg(model.W_E.detach()), upcast_for_linalg(readout.unembedding())
    if len(W_E) != W_U.shape[1]:
        raise ValueError(f"Copying needs one vocabulary: {len(W_E)} tokens go in and {W_U.shape[1]} logits come out.")
    if readout.ln_final is not None:
        W_U = readout.ln_final.centred(readout.ln_final.weighted(W_U.T)).T
    through_vocabulary = (W_U - W_U.mean(1, keepdim=True)) @ W_E  # [d_model out of the stream, d_model into it]
    found = {}
    for number, part in enumerate(readout.layers):
        if not part.heads:
            continue
        attn = model.blocks[number].attn
        W_O, W_V = upcast_for_linalg(attn.W_O.detach()), upcast_for_linalg(attn.W_V.detach())
        if part.ln1 is not None:
            W_V = part.ln1.centred(part.ln1.weighted(W_V.mT)).mT
        small = W_O @ through_vocabulary.to(W_O) @ W_V.repeat_interleave(len(W_O) // len(W_V), 0)
        found[number] = torch.linalg.eigvals(small.cpu())
    return per_head(readout, found)


def copying_scores(model: Any) -> Float[Tensor, "layer head"]:
    """How positive the eigenvalues of each head's full OV circuit are: sum of real parts over sum of absolute values.

    1: whatever token it attends to, the head raises that token's logit; -1: it lowers it. See `ov_eigenvalues`.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> scores = copying_scores(HookedTransformer.from_pretrained("demo"))
        >>> bool((scores.abs() <= 1).all())
        True
    """
    values = ov_eigenvalues(model)
    scores: Tensor = values.real.sum(-1) / values.abs().sum(-1)
    return scores
