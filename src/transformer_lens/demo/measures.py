"""Measured results of the demo model on held-out prompts: tasks, heads, and the indirect-object circuit.

Works on a plain transformers model with eager attention and imports nothing of this library but the tasks, so that its
numbers can check the rest of the library.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import GPT2LMHeadModel

from transformer_lens.demo.folder import bos_id, encoder, folder
from transformer_lens.demo.grammar import agreement, pronouns
from transformer_lens.demo.indirect_objects import ioi, thanks
from transformer_lens.demo.knowledge import capitals, facts
from transformer_lens.demo.prompts import Prompts
from transformer_lens.demo.series import greater_than, successors
from transformer_lens.demo.signatures import docstrings

Head = tuple[int, int]
LENGTH = 25


@dataclass(frozen=True)
class Circuit:
    """The indirect-object circuit: a name mover, and an earlier head whose loss makes it lose its preference.

    Attention is from the last position, a mean over held-out prompts; `to_subject` is S1 and S2 together. `attribution`
    is the name mover's direct effect on the logit difference IO - S. The reader's `reads_S2` is its own attention to
    S2; `preference` is the name mover's attention to IO minus that to the subject, and `preference_without_reader` the
    same when the reader's output is replaced by its mean over the batch at each position.
    """

    name_mover: Head
    to_IO: float
    to_subject: float
    attribution: float
    s2_reader: Head
    reads_S2: float
    preference: float
    preference_without_reader: float
    logit_difference_without_reader: float


def load() -> GPT2LMHeadModel:
    """The demo model as transformers loads it, with eager attention so that patterns can be read."""
    return GPT2LMHeadModel.from_pretrained(folder(), attn_implementation="eager").eval()


def task_results(model: GPT2LMHeadModel, *, n: int = 60, batches: int = 4) -> dict[str, float]:
    """Held-out figures by task, each a mean over `batches` batches of n prompts (fewer where a split is small).

    `accuracy` is the fraction of prompts whose likeliest next token in the whole vocabulary is the answer, `preferred`
    of those where the answer beats the wrong one; `logit difference` is answer minus wrong; `mass` is the probability
    of all right answers; the repeated loss is in nats per token of the second half.
    """
    means: dict[str, float] = {}
    for name, task, size in (
        ("ioi", ioi, n),
        ("thanks", thanks, n),
        ("facts", facts, 6),
        ("capitals", capitals, 6),
        ("pronouns", pronouns, 10),
        ("agreement", agreement, n),
        ("docstrings", docstrings, n),
        ("successors", successors, 6),
        ("greater_than", greater_than, n),
    ):
        for figure, value in _mean_figures(model, task, size, batches * max(1, n // size)).items():
            means[f"{name} {figure}"] = value
    for kind in ("words", "uniform"):
        tokens = repeated_rows(n, kind == "words")
        means[f"repeated {kind} nats"] = repeated_loss(model, tokens)
    return means


def last_logits(model: GPT2LMHeadModel, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch d_vocab"]:
    """Logits after the last token."""
    with torch.no_grad():
        logits: Tensor = model(tokens, attention_mask=torch.ones_like(tokens)).logits
    return logits[:, -1]


def repeated_rows(n: int, words_only: bool, seed: int = 0) -> Int[Tensor, "batch pos"]:
    """BOS and 25 random tokens twice: spaced words only, or uniform over the whole vocabulary, bytes included."""
    random = torch.Generator().manual_seed(seed)
    bos = bos_id()
    spaced = [index for token, index in encoder().get_vocab().items() if token.startswith("Ġ") and token[1:].isalpha()]
    pool = torch.tensor(sorted(spaced)) if words_only else torch.arange(bos)
    once = pool[torch.randint(len(pool), (n, LENGTH), generator=random)]
    return torch.cat([torch.full((n, 1), bos), once, once], dim=1)


def repeated_loss(model: GPT2LMHeadModel, tokens: Int[Tensor, "batch pos"]) -> float:
    """Mean loss in nats on the second half of `repeated_rows`, its first token (which nothing announces) left out."""
    with torch.no_grad():
        logits = model(tokens, attention_mask=torch.ones_like(tokens)).logits
    start = LENGTH + 1
    return nn.functional.cross_entropy(logits[:, start:-1].flatten(0, 1), tokens[:, start + 1 :].flatten()).item()


def head_scores(model: GPT2LMHeadModel, *, n: int = 60) -> dict[str, Float[Tensor, "layer head"]]:
    """Mean attention by head on uniform repeated tokens.

    `induction` is attention from the second half to the token after the last occurrence; `previous_token` from every
    position to the one before.
    """
    tokens = repeated_rows(n, words_only=False)
    pattern = _patterns(model, tokens)
    query = torch.arange(LENGTH + 1, 2 * LENGTH + 1)
    back = torch.arange(1, 2 * LENGTH + 1)
    return {
        "induction": pattern[..., query, query - LENGTH + 1].mean(dim=(1, 3)),
        "previous_token": pattern[..., back, back - 1].mean(dim=(1, 3)),
    }


def find_circuit(model: GPT2LMHeadModel, *, n: int = 60, seeds: tuple[int, ...] = (0, 1, 2)) -> Circuit:
    """The strongest name mover on held-out prompts and, of the earlier heads at S2, the one it depends on most."""
    batches = [ioi(n, seed) for seed in seeds]
    to_io, to_subject, to_s2, effect = (
        torch.stack(figures).mean(0) for figures in zip(*(_ioi_heads(model, batch) for batch in batches), strict=True)
    )
    n_heads = to_io.shape[1]
    good = torch.where(effect > 0, to_io - to_subject, -torch.inf)
    mover = divmod(int(good.argmax()), n_heads)
    readers = [(layer, head) for layer in range(mover[0]) for head in range(n_heads) if to_s2[layer, head] > 0.3]
    outcomes = {reader: _without(model, batches, mover, reader) for reader in readers}
    reader = min(outcomes, key=lambda key: outcomes[key][0], default=(0, 0))
    preference, difference = outcomes.get(reader, (float("nan"), float("nan")))
    return Circuit(
        name_mover=mover,
        to_IO=to_io[mover].item(),
        to_subject=to_subject[mover].item(),
        attribution=effect[mover].item(),
        s2_reader=reader,
        reads_S2=to_s2[reader].item(),
        preference=(to_io - to_subject)[mover].item(),
        preference_without_reader=preference,
        logit_difference_without_reader=difference,
    )


def _mean_figures(model: GPT2LMHeadModel, task: Callable[..., Prompts], size: int, batches: int) -> dict[str, float]:
    found = [_figures(model, task(size, seed)) for seed in range(batches)]
    return {name: sum(figures[name] for figures in found) / len(found) for name in found[0]}


def _figures(model: GPT2LMHeadModel, batch: Prompts) -> dict[str, float]:
    logits = last_logits(model, batch.tokens)
    rows = torch.arange(len(batch))
    right, wrong = logits[rows, batch.answer_tokens], logits[rows, batch.wrong_tokens]
    mass = (logits.softmax(-1) * batch.right).sum(-1)
    return {
        "accuracy": (logits.argmax(-1) == batch.answer_tokens).float().mean().item(),
        "preferred": (right > wrong).float().mean().item(),
        "logit difference": (right - wrong).mean().item(),
        "mass": mass.mean().item(),
    }


def _patterns(model: GPT2LMHeadModel, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "layer batch head query key"]:
    with torch.no_grad():
        out = model(tokens, attention_mask=torch.ones_like(tokens), output_attentions=True)
    return torch.stack(out.attentions)


def _ioi_heads(model: GPT2LMHeadModel, batch: Prompts) -> list[Float[Tensor, "layer head"]]:
    """Attention from the last position to IO, S1 + S2, and S2; and the direct effect on the logit difference."""
    pattern = _patterns(model, batch.tokens)[:, :, :, -1]
    rows = torch.arange(len(batch))
    to = {role: pattern[:, rows, :, batch.positions[role]].mean(0) for role in ("IO", "S1", "S2")}
    return [to["IO"], to["S1"] + to["S2"], to["S2"], _attribution(model, batch)]


def _attribution(model: GPT2LMHeadModel, batch: Prompts) -> Float[Tensor, "layer head"]:
    """Mean direct effect of each head at the last position on logit(answer) - logit(wrong), the final norm frozen."""
    inputs: dict[int, Tensor] = {}
    final: dict[int, Tensor] = {}

    def keep(module: nn.Module, args: tuple[Tensor, ...], *, into: dict[int, Tensor], key: int) -> None:
        into[key] = args[0][:, -1]

    blocks, norm = model.transformer.h, model.transformer.ln_f
    handles = [
        block.attn.c_proj.register_forward_pre_hook(partial(keep, into=inputs, key=layer))
        for layer, block in enumerate(blocks)
    ]
    handles.append(norm.register_forward_pre_hook(partial(keep, into=final, key=0)))
    last_logits(model, batch.tokens)
    for handle in handles:
        handle.remove()
    unembed = model.lm_head.weight.detach()
    direction = (unembed[batch.answer_tokens] - unembed[batch.wrong_tokens]) * norm.weight.detach()
    centred = direction - direction.mean(-1, keepdim=True)
    scale = (final[0].var(-1, unbiased=False) + norm.eps).sqrt()
    effects = []
    for layer, block in enumerate(blocks):
        z = inputs[layer].unflatten(-1, (model.config.n_head, -1))  # batch head d_head
        W_O = block.attn.c_proj.weight.detach().unflatten(0, (model.config.n_head, -1))  # head d_head d_model
        written = torch.einsum("bhe,hed->bhd", z, W_O)
        effects.append((torch.einsum("bhd,bd->bh", written, centred) / scale[:, None]).mean(0))
    return torch.stack(effects)


@contextmanager
def mean_ablated(model: GPT2LMHeadModel, head: Head) -> Iterator[None]:
    """Within it, the head's output is its mean over the batch at each position."""
    layer, index = head
    width = model.config.n_embd // model.config.n_head
    span = slice(index * width, (index + 1) * width)

    def replace(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        z = args[0].clone()
        z[..., span] = z[..., span].mean(0, keepdim=True)
        return (z,)

    handle = model.transformer.h[layer].attn.c_proj.register_forward_pre_hook(replace)
    try:
        yield
    finally:
        handle.remove()


def _without(model: GPT2LMHeadModel, batches: list[Prompts], mover: Head, reader: Head) -> tuple[float, float]:
    """The name mover's preference and the model's logit difference when the reader is ablated."""
    preferences, differences = [], []
    for batch in batches:
        with mean_ablated(model, reader):
            to_io, to_subject, _, _ = _ioi_heads(model, batch)
            logits = last_logits(model, batch.tokens)
        rows = torch.arange(len(batch))
        preferences.append((to_io - to_subject)[mover].item())
        differences.append((logits[rows, batch.answer_tokens] - logits[rows, batch.wrong_tokens]).mean().item())
    return sum(preferences) / len(preferences), sum(differences) / len(differences)
