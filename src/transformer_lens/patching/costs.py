"""What a sweep costs: floating-point operations, bytes for each cell, and the memory that is free."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import torch

from transformer_lens.patching.plain_run import PlainRun

LEAST_BUDGET = 64 * 2**20


@dataclass(frozen=True)
class Costs:
    """Sizes of one model and batch, as far as they decide costs.

    Attributes:
        batch, n_positions, n_layers: of the run.
        block: numbers that one layer multiplies a token's stream by.
        unembedded: numbers that the unembedding multiplies it by.
        mixed: numbers for each pair of a query and a key.
        width: numbers that one token takes at once while a layer runs.
        keys: numbers that its key and value take.
        heads: attention heads, each with a row of scores; 0 where they are not kept.
        bytes_each: bytes of a number.
        reads: positions of which logits are computed; None: all that run.
    """

    batch: int
    n_positions: int
    n_layers: int
    block: int
    unembedded: int
    mixed: int
    width: int
    keys: int
    heads: int
    bytes_each: int
    reads: int | None = None

    def flops_of_a_run(self) -> int:
        """Operations of a whole run of the batch, all logits included."""
        return replace(self, reads=None).flops(self.n_layers, 0)

    def flops(self, layers: int, first: int) -> int:
        """Operations of one cell over so many layers, from position `first` on."""
        tokens = self.n_positions - first
        pairs = tokens * self.n_positions
        read = tokens if self.reads is None else self.reads
        each = layers * (tokens * self.block + pairs * self.mixed) + read * self.unembedded
        return 2 * self.batch * each

    def bytes_of_a_cell(self, first: int) -> int:
        """Bytes that the rows of one cell take at once, from position `first` on."""
        tokens = self.n_positions - first
        numbers = tokens * (self.width + self.heads * self.n_positions) + 2 * self.n_positions * self.keys
        return self.batch * numbers * self.bytes_each


def costs_of(run: PlainRun, reads: int | None = None) -> Costs:
    """The costs of a plain run's parts."""
    cfg: Any = run.model.cfg
    heads, key_heads = cfg.n_heads, cfg.n_key_value_heads or cfg.n_heads
    attention = cfg.d_model * cfg.d_head * 2 * (heads + key_heads)
    d_mlp = 0 if cfg.attn_only or cfg.d_mlp is None else cfg.d_mlp
    experts = cfg.experts_per_token or 1
    mlp = (3 if cfg.gated_mlp else 2) * cfg.d_model * d_mlp * experts
    seen = any(name.endswith(("hook_pattern", "hook_attn_scores")) for name in run.request.hooks)
    return Costs(
        batch=run.batch,
        n_positions=run.n_positions,
        n_layers=run.n_layers,
        block=attention + mlp,
        unembedded=cfg.d_model * run.logits.shape[-1],
        mixed=2 * heads * cfg.d_head,
        width=6 * cfg.d_model + 4 * heads * cfg.d_head + 6 * d_mlp * experts,
        keys=2 * heads * cfg.d_head,
        heads=4 * heads if seen else heads,
        bytes_each=run.streams[0].element_size(),
        reads=reads,
    )


def default_budget(run: PlainRun) -> int:
    """Bytes that rows may take: half of what the model itself takes, and at most half of what is free.

    More rows at once are not faster, once they are about as large as the weights that are read for them.
    """
    model = sum(parameter.numel() * parameter.element_size() for parameter in run.model.parameters())
    return max(LEAST_BUDGET, min(int(model) // 2, free_memory(run.streams[0].device) // 2))


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device.

    Example:
        >>> free_memory(torch.device("cpu")) > 0
        True
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory()) - int(torch.mps.driver_allocated_memory())
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"  # macOS knows no free ones
    return int(os.sysconf(pages)) * int(os.sysconf("SC_PAGE_SIZE"))
