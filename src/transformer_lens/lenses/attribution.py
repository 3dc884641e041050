"""Direct logit attribution: what embeddings, layers, heads and neurons add to a logit or to a difference of two."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transformer_lens import viz
from transformer_lens.cache.activation_cache import ActivationCache
from transformer_lens.cache.attribution import token_ids
from transformer_lens.cache.reading import Reading, post_scale, reading_of
from transformer_lens.cache.readout import Readout, readout_of
from transformer_lens.cache.run import Question, Run, norm_at, stream
from transformer_lens.cache.sections import check_neurons, weight_here
from transformer_lens.lenses.runs import Input, sample

Unit = Literal["component", "head", "neuron"]
Token = Int[Tensor, "batch"] | int | str


@dataclass(frozen=True)
class DirectLogitAttribution:
    """What parts of the final stream add to a logit (or a difference of two), through the final norm as it was.

    `attribution.sum(0) + rest + constant` is the logit (before a soft cap), or the difference.

    Attributes:
        attribution: in logits.
        labels: of the parts: 0_attn_out, L0H0, L0N5, ….
        unit: "component", "head" or "neuron".
        rest: what the parts that are not listed add.
        constant: what no part writes: b_U, and the final norm's bias through W_U.
    """

    attribution: Float[Tensor, "part batch"]
    labels: list[str]
    unit: Unit
    rest: Float[Tensor, "batch"]
    constant: Float[Tensor, "batch"]

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """The k parts of greatest mean attribution by absolute value, with that mean."""
        means = self.attribution.mean(1)
        best = means.abs().topk(min(k, len(means))).indices.tolist()
        return [(self.labels[part], means[part].item()) for part in best]

    def table(self) -> list[dict[str, Any]]:
        """One dict for each part (label, mean over the batch, values), for pandas or JSON."""
        return [
            {"label": label, "mean": row.mean().item(), "values": row.tolist()}
            for label, row in zip(self.labels, self.attribution, strict=True)
        ]

    def picture(self, title: str = "Direct logit attribution") -> viz.Picture:
        """The mean over the batch: heads as a grid of layer and head, other parts in one row."""
        means = self.attribution.mean(1)
        if self.unit == "head" and means.numel():
            places = [tuple(map(int, label[1:].split("H"))) for label in self.labels]
            grid = torch.full((1 + max(layer for layer, _ in places), 1 + max(head for _, head in places)), torch.nan)
            for place, value in zip(places, means.tolist(), strict=True):
                grid[place] = value
            return viz.head_grid(grid, title=title, value_name="logits", annotate=True)
        return viz.heat_map(
            means[None], row_labels=["mean"], column_labels=self.labels, title=title, row_axis="batch",
            column_axis=self.unit, value_name="logits", annotate=True,
        )  # fmt: skip

    def _repr_html_(self) -> str:
        return self.picture().html()


@dataclass(frozen=True)
class Goal:
    """The logits that parts are counted for, and how the final stream is read towards them.

    Attributes:
        pos: the position.
        reading: through the final norm there, projected onto one direction for each batch row.
        total: what the whole final stream adds.
        constant: what no part writes.
    """

    pos: int
    reading: Reading
    total: Float[Tensor, "batch"]
    constant: Float[Tensor, "batch"]

    def divided(self, rows: Float[Tensor, "*part batch"], *scales: Tensor | None) -> Float[Tensor, "*part batch"]:
        """The rows, divided by the final norm's scale and by others ([batch, 1] each)."""
        return self.reading.divided(rows[..., None], *scales)[..., 0]


@torch.no_grad()
def direct_logit_attribution(
    model: Any,
    input: Input | None = None,
    answer_tokens: Token | None = None,
    incorrect_tokens: Token | None = None,
    *,
    unit: Unit = "component",
    pos: int = -1,
    top_k: int = 20,
    cache: ActivationCache | None = None,
) -> DirectLogitAttribution:
    """What each part adds to logit(answer), or to logit(answer) - logit(incorrect), at one position, directly.

    The final norm is linear once its scale is known, and the scale of the run is used. What a part writes through
    later layers is not counted. Neurons are read layer by layer, in numbers per neuron and row, not in vectors. Source:
    Elhage et al., "A Mathematical Framework for Transformer Circuits", 2021.

    Args:
        model: the model, on either host.
        input: a text, texts of one length or token ids; or a cache that holds what is split: hook_embed and so on,
            every attn_out and mlp_out ("component"), z ("head") or mlp.hook_post ("neuron"), the last
            hook_resid_post, and the scales of ln_final and of norms behind layers.
        answer_tokens: a token, or one for each row; needed.
        incorrect_tokens: the tokens whose logits are subtracted.
        unit: "component" (embeddings, attention and MLP of each layer), "head" or "neuron".
        pos: the position that predicts.
        top_k: how many neurons are listed, the greatest by absolute mean.
        cache: the cache, in place of input.

    Raises:
        ValueError: there is no such unit, no answer, not one of input and cache, or tokens do not fit.
        UnknownNameError: the cache lacks what is needed.
        UndefinedDecompositionError: neurons, in a model whose MLPs are no sum over neurons.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> found = direct_logit_attribution(model, "The Eiffel Tower is in", " Paris", " Rome", unit="component")
        >>> found.labels[:4], found.rest.abs().item() < 1e-3
        (['embed', 'pos_embed', '0_attn_out', '0_mlp_out'], True)
    """
    if unit not in get_args(Unit):
        raise ValueError(f"unit is one of {', '.join(get_args(Unit))}; got {unit!r}.")
    if answer_tokens is None:
        raise ValueError("What each part adds is counted towards an answer: give answer_tokens.")
    if (input is None) == (cache is None):
        raise ValueError(f"Give one of input and cache; got {'neither' if cache is None else 'both'}.")
    seen = input if cache is None else cache
    assert seen is not None
    run = Question(sample(model, seen, names_of(readout_of(model), unit)).cache)
    goal = goal_of(run, answer_tokens, incorrect_tokens, pos)
    if unit == "neuron":
        labels, rows = _top_neurons(run, goal, top_k)
    else:
        parts = list(_components(run, goal) if unit == "component" else _heads(run, goal))
        labels = [label for names, _ in parts for label in names]
        rows = torch.cat([values for _, values in parts]) if parts else goal.total.new_empty(0, len(goal.total))
    return DirectLogitAttribution(rows, labels, unit, goal.total - rows.sum(0), goal.constant)


def head_attribution(
    model: Any, input: Input, answer: Token, wrong: Token | None = None, pos: int = -1
) -> Float[Tensor, "batch layer head"]:
    """What each head's output at one position adds to logit(answer) - logit(wrong), directly.

    See `direct_logit_attribution`, with unit="head"; layers without attention are left out.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> _, cache = model.run_with_cache("The Eiffel Tower is in")
        >>> head_attribution(model, cache, " Paris", " Rome").shape == (1, model.cfg.n_layers, model.cfg.n_heads)
        True
    """
    rows = direct_logit_attribution(model, input, answer, wrong, unit="head", pos=pos).attribution
    by_layer: Tensor = rows.T.unflatten(1, (-1, model.cfg.n_heads))
    return by_layer


def goal_of(run: Run, answer: Token, wrong: Token | None, pos: int) -> Goal:
    """How the final stream of a run at a position is read towards logit(answer) - logit(wrong)."""
    final = stream(run, run.n_layers)[:, pos]
    readout, batch = run.readout, final.shape[0]
    vocabulary = readout.unembedding().T

    def rows(token: Token) -> tuple[Tensor, Tensor]:
        ids = token_ids(run, token).reshape(-1).to(vocabulary.device)
        if len(ids) not in (1, batch):
            raise ValueError(f"Give one token or one for each of the {batch} rows; got {len(ids)}.")
        bias = vocabulary.new_zeros(batch) if readout.b_U is None else readout.b_U[ids].expand(batch)
        return vocabulary[ids].expand(batch, -1), bias

    direction, constant = rows(answer)
    if wrong is not None:
        minus, bias = rows(wrong)
        direction, constant = direction - minus, constant - bias
    norm = norm_at(run, run.n_layers)
    if norm is not None:
        if norm.b is not None:
            constant = constant + direction @ norm.b.to(direction)
        direction = norm.weighted(direction)
    reading = reading_of(run, run.n_layers, apply_ln=True, pos_slice=pos, project_output_onto=direction.T)
    return Goal(pos, reading, reading.divided(_dot(reading, final)[:, None])[:, 0], constant)


def _dot(reading: Reading, vectors: Float[Tensor, "batch d_model"]) -> Float[Tensor, "batch"]:
    """Each row's vector along its own direction."""
    assert reading.onto is not None
    centred = vectors if reading.norm is None else reading.norm.centred(vectors)
    along: Tensor = (centred * reading.onto.T.to(centred)).sum(-1)
    return along


def _components(run: Run, goal: Goal) -> Iterator[tuple[list[str], Tensor]]:
    layers = run.readout.layers
    keys: list[tuple[str | int, ...]] = [(name,) for name in run.readout.embeddings]
    for number, layer in enumerate(layers):
        keys += [("attn_out", number)] if layer.heads else []
        keys += [("mlp_out", number)] if layer.mlp else []
    for key in keys:
        value = run.needed(*key)[:, goal.pos]
        label = "_".join(str(part) for part in reversed(key))
        yield [label], goal.divided(_dot(goal.reading, value.expand(len(goal.total), -1)))[None]


def _heads(run: Run, goal: Goal) -> Iterator[tuple[list[str], Tensor]]:
    for number, layer in enumerate(run.readout.layers):
        if layer.heads:
            z = run.needed("z", number)[:, goal.pos]  # [batch, head, d_head]
            values = torch.einsum("bhk,hkb->hb", z, read_by_heads(run, goal, number).to(z))
            scale = post_scale(run, goal.reading, layer.ln1_post)
            yield [f"L{number}H{head}" for head in range(layer.heads)], goal.divided(values, scale)


def read_by_heads(run: Run, goal: Goal, layer: int) -> Float[Tensor, "head d_head batch"]:
    """What a head's value adds to each row's goal, but for the division by scales."""
    part = run.readout.layers[layer]
    return goal.reading.turned(weight_here(part.W_O, "W_O", layer), part.ln1_post)


def _top_neurons(run: Run, goal: Goal, top_k: int) -> tuple[list[str], Tensor]:
    """The neurons of greatest absolute mean; no more than a layer's numbers [neuron, batch] are held beside them."""
    best, labels = goal.total.new_empty(0, len(goal.total)), list[str]()
    for number, layer in enumerate(run.readout.layers):
        if layer.mlp is None:
            continue
        check_neurons(layer, number)
        active = run.needed("post", number)[:, goal.pos]  # [batch, d_mlp]
        weight = weight_here(layer.W_out, "W_out", number)
        values = goal.reading.turned(weight, layer.ln2_post).to(active) * active.T  # [d_mlp, batch]
        values = goal.divided(values, post_scale(run, goal.reading, layer.ln2_post))
        here = values.mean(1).abs().topk(min(top_k, len(values))).indices
        labels += [f"L{number}N{neuron}" for neuron in here.tolist()]
        best = torch.cat([best, values[here]])
        kept = best.mean(1).abs().topk(min(top_k, len(best))).indices
        best, labels = best[kept], [labels[place] for place in kept.tolist()]
    return labels, best


def names_of(readout: Readout, unit: Unit | Literal["source"]) -> list[str]:
    """The hook points that this unit needs."""
    n_layers = len(readout.layers)
    names = [f"blocks.{n_layers - 1}.hook_resid_post"]
    names += [] if readout.ln_final is None else [f"{readout.ln_final.name}.hook_scale"]
    names += [f"hook_{name}" for name in readout.embeddings] if unit == "component" else []
    for number, layer in enumerate(readout.layers):
        block, behind = f"blocks.{number}", [layer.ln1_post, layer.ln2_post]
        if layer.heads:
            heads = {"component": ["hook_attn_out"], "head": ["attn.hook_z"], "neuron": []}
            heads["source"] = ["attn.hook_v", "attn.hook_pattern"]
            names += [f"{block}.{name}" for name in heads[unit]]
        if layer.mlp is not None:
            mlp = {"component": ["hook_mlp_out"], "neuron": ["mlp.hook_post"] if layer.mlp == "neurons" else []}
            names += [f"{block}.{name}" for name in mlp.get(unit, [])]
        names += [f"{norm.name}.hook_scale" for norm in behind if norm is not None and unit != "component"]
    return names
