"""A model in which the subspace of a variable is known, because it was put there."""

import pytest
import torch

from transformer_lens import HookedTransformer
from transformer_lens.steering import Interchanges

N_FIRST, N_SECOND = 3, 4
STREAM = "blocks.0.hook_resid_post"


@pytest.fixture(scope="module")
def planted():
    """A model whose tokens are pairs (a, b), each written into a subspace of its own, and whose answer is the token.

    Nothing happens in its layer, so exchanging the subspace of `a` must give the token (a of source, b of base).
    """
    d_model = 16
    cfg = {"n_layers": 1, "d_model": d_model, "d_head": 4, "n_ctx": 4, "d_vocab": N_FIRST * N_SECOND}
    model = HookedTransformer({**cfg, "attn_only": True, "normalization_type": None, "device": "cpu"})
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(d_model, d_model, generator=generator)).Q
    first, second = basis[:N_FIRST], basis[N_FIRST : N_FIRST + N_SECOND]
    codes = torch.stack([1.5 * first[a] + 1.5 * second[b] for a in range(N_FIRST) for b in range(N_SECOND)])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.embed.W_E.copy_(codes)
        model.unembed.W_U.copy_(codes.T)
    return model, first - first.mean(0)


def pairs_of_tokens():
    base, source = torch.cartesian_prod(torch.arange(12), torch.arange(12)).T
    label = source // N_SECOND * N_SECOND + base % N_SECOND
    return Interchanges(base[:, None], source[:, None], label)
