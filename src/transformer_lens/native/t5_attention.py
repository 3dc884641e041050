"""Attention of T5: no scaling, no biases, and relative positions as a bias of the scores."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from transformer_lens.config import HookedTransformerConfig
from transformer_lens.errors import ConfigurationError
from transformer_lens.hooks import HookPoint
from transformer_lens.native.attention import Attention
from transformer_lens.native.positions import relative_buckets


class T5Attention(Attention):
    """Attention of an encoder, of a decoder to itself, or of a decoder to its encoder (arXiv 1910.10683).

    Args:
        cfg: the configuration.
        has_relative_attention_bias: it holds the table of relative positions, as the first layer does for all.
        attn_type: "global" or "local".
        layer_id: the layer.
        is_decoder: a query sees no later keys, and relative positions point back only.

    Attributes:
        rel_pos_bias: the table, [bucket, head].
        rel_pos_hook: sees the bias that all layers add to their scores, [1, head, query, key].
    """

    def __init__(
        self,
        cfg: HookedTransformerConfig,
        has_relative_attention_bias: bool = False,
        attn_type: str = "global",
        layer_id: int | None = None,
        is_decoder: bool = False,
    ):
        super().__init__(cfg, attn_type, layer_id)
        self.is_decoder = is_decoder
        self.has_relative_attention_bias = has_relative_attention_bias
        if has_relative_attention_bias:
            buckets, furthest = cfg.relative_attention_num_buckets, cfg.relative_attention_max_distance
            if buckets is None or furthest is None:
                raise ConfigurationError(
                    "Relative positions need relative_attention_num_buckets and relative_attention_max_distance."
                )
            self.buckets, self.furthest = buckets, furthest
            table = torch.zeros(buckets, cfg.n_heads, dtype=cfg.dtype)
            self.rel_pos_bias = nn.Embedding(buckets, cfg.n_heads, _weight=table)
            self.rel_pos_hook = HookPoint()  # [1, head, query, key]

    @property
    def causal(self) -> bool:
        """Whether a query sees no later keys."""
        return self.is_decoder

    def compute_relative_attention_bias(
        self, query_length: int, key_length: int, device: torch.device | str | None = None, *, first: int = 0
    ) -> Float[Tensor, "1 head query key"]:
        """What relative positions add to the scores.

        Args:
            query_length, key_length: how many queries and keys.
            device: where the result goes; None: where the table is.
            first: the position of the first query (that of the first key is 0).

        Raises:
            ConfigurationError: this layer holds no table.

        Example:
            >>> cfg = HookedTransformerConfig(
            ...     d_model=8, d_head=4, n_layers=1, n_ctx=16, d_vocab=9,
            ...     positional_embedding_type="relative_positional_bias", relative_attention_num_buckets=8,
            ...     relative_attention_max_distance=16,
            ... )
            >>> T5Attention(cfg, has_relative_attention_bias=True).compute_relative_attention_bias(3, 5).shape
            torch.Size([1, 2, 3, 5])
        """
        if not self.has_relative_attention_bias:
            raise ConfigurationError(
                "This layer holds no relative positions: the first layer of each stack has them for all its layers."
            )
        places = relative_buckets(
            query_length,
            key_length,
            bidirectional=not self.is_decoder,
            count=self.buckets,
            furthest=self.furthest,
            first=first,
        )
        bias: Tensor = self.rel_pos_bias(places.to(self.rel_pos_bias.weight.device)).permute(2, 0, 1)[None]
        return self.rel_pos_hook(bias if device is None else bias.to(device))  # type: ignore[no-any-return]
