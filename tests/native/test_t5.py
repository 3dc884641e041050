"""Relative positions and the layer of T5, alone."""

import math

import pytest
import torch
from transformers.models.t5.modeling_t5 import T5Attention as HFT5Attention

from transformer_lens.config import HookedTransformerConfig
from transformer_lens.errors import ConfigurationError
from transformer_lens.native.positions import relative_buckets
from transformer_lens.native.t5_attention import T5Attention
from transformer_lens.native.t5_block import T5Block


def slowly(key, query, bidirectional, count, furthest):
    """One bucket, as section 2.1 of the T5 paper and its code say."""
    distance, start = query - key, 0
    if bidirectional:
        count //= 2
        start = count if distance < 0 else 0
        distance = abs(distance)
    distance = max(distance, 0)
    exact = count // 2
    if distance < exact:
        return start + distance
    return start + min(
        exact + int(math.log(distance / exact) / math.log(furthest / exact) * (count - exact)), count - 1
    )


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("count", "furthest"), [(8, 16), (32, 128), (6, 50)])
def test_buckets_one_by_one(bidirectional, count, furthest):
    found = relative_buckets(150, 170, bidirectional=bidirectional, count=count, furthest=furthest, first=7)
    for query in range(0, 150, 7):
        for key in range(170):
            assert found[query, key] == slowly(key, query + 7, bidirectional, count, furthest)
    places = torch.arange(170)[None] - (torch.arange(150) + 7)[:, None]
    theirs = HFT5Attention._relative_position_bucket(places, bidirectional, count, furthest)
    assert torch.equal(found, theirs)
    assert len(found.unique()) > count // 2


@pytest.fixture
def cfg():
    return HookedTransformerConfig(
        n_layers=1, d_model=16, d_head=4, n_ctx=32, d_vocab=20, device="cpu", use_attn_scale=False,
        positional_embedding_type="relative_positional_bias", relative_attention_num_buckets=8,
        relative_attention_max_distance=16, normalization_type="RMS",
    )  # fmt: skip


def filled(module):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return module


def test_a_later_piece_of_the_bias(cfg):
    attention = filled(T5Attention(cfg, has_relative_attention_bias=True, is_decoder=True))
    whole = attention.compute_relative_attention_bias(9, 9)
    assert whole.shape == (1, 4, 9, 9)
    assert torch.equal(attention.compute_relative_attention_bias(3, 9, "cpu", first=6), whole[:, :, 6:])
    with pytest.raises(ConfigurationError, match="the first layer of each stack"):
        T5Attention(cfg).compute_relative_attention_bias(2, 2)


@torch.no_grad()
def test_attention_is_what_its_paper_says(cfg):
    attention = filled(T5Attention(cfg, has_relative_attention_bias=True, is_decoder=True))
    x = torch.randn(2, 6, 16)
    bias = attention.compute_relative_attention_bias(6, 6)
    q, k, v = (torch.einsum("bpd,hdk->bhpk", x, w) + b[:, None] for w, b in (
        (attention.W_Q, attention.b_Q), (attention.W_K, attention.b_K), (attention.W_V, attention.b_V),
    ))  # fmt: skip
    scores = (q @ k.mT + bias).masked_fill(torch.ones(6, 6).triu(1).bool(), -torch.inf)
    wanted = torch.einsum("bhpk,hkd->bpd", scores.softmax(-1) @ v, attention.W_O) + attention.b_O
    torch.testing.assert_close(attention(x, x, x, position_bias=bias), wanted, rtol=0, atol=1e-5)


def test_what_a_layer_needs(cfg):
    encoder, decoder = T5Block(cfg, 0, is_decoder=False), T5Block(cfg, 0, is_decoder=True)
    x, bias = torch.zeros(1, 3, 16), torch.zeros(1, 4, 3, 3)
    with pytest.raises(ValueError, match="compute_relative_attention_bias"):
        encoder(x)
    with pytest.raises(ValueError, match="a decoder's layer reads the encoder: give encoder_hidden_states"):
        decoder(x, position_bias=bias)
    with pytest.raises(ValueError, match="an encoder's layer has no use for encoder_hidden_states"):
        encoder(x, position_bias=bias, encoder_hidden_states=x)
