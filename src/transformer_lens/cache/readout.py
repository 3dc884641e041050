"""Readout: what a cache needs to know of its model to be analysed, apart from the model.

A cache holds activations. To split the stream into parts it must also know how each layer writes into it, and to read
the parts as logits, what comes after the stream. That is all a Readout holds, as tensors and a few words, so it can
be saved beside the activations. Each kind of model registers how its Readout is made (`readout_of.register`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import layer_norm, rms_norm

from transformer_lens.cache.errors import MissingWeightsError
from transformer_lens.native.activations import apply_softcap

MLPKind = Literal["neurons", "experts", "opaque"]


@dataclass(frozen=True)
class NormReadout:
    """A norm. Given its scale, it is linear but for the bias: subtract the mean (LN only), divide, multiply by w.

    Attributes:
        kind: "LN" or "RMS".
        name: the part of the model it is; the cache holds what it divided by as `<name>.hook_scale`.
        eps: what is added to the mean square before the root.
        w: weight; None: one (folded into what reads this norm).
        b: bias; None: zero.

    Example:
        >>> NormReadout("LN", "ln_final").centred(torch.tensor([[1.0, 3.0]]))
        tensor([[-1.,  1.]])
    """

    kind: Literal["LN", "RMS"]
    name: str
    eps: float = 1e-5
    w: Float[Tensor, "d_model"] | None = None
    b: Float[Tensor, "d_model"] | None = None

    def centred(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """x without its mean, for a layer norm; x itself for an RMS norm."""
        return x - x.mean(-1, keepdim=True) if self.kind == "LN" else x

    def weighted(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """X times w."""
        return x if self.w is None else x * self.w.to(x)

    def applied(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """The whole norm, by x's own scale, w and b included; in float32 or wider, and back to x's dtype."""
        wide = x if x.dtype == torch.float64 else x.float()
        shape = wide.shape[-1:]
        normed = layer_norm(wide, shape, eps=self.eps) if self.kind == "LN" else rms_norm(wide, shape, eps=self.eps)
        normed = self.weighted(normed)
        return (normed if self.b is None else normed + self.b.to(normed)).to(x.dtype)


@dataclass(frozen=True)
class LayerReadout:
    """How one layer writes into the stream.

    Attributes:
        heads: how many attention heads write; 0: this layer has no attention.
        mlp: "neurons" (what is written is neurons times W_out, plus b_out), "experts" (a mixture of them), "opaque"
            (something else), or None: no MLP.
        parallel: attention and MLP read the same stream.
        ln1, ln2: the norms through which attention and MLP read; None: they read the stream as it is.
        ln1_post, ln2_post: the norms through which they write; None: they write as they are.
        W_O, W_out: output weights; None: not here (a cache saved without weights).
        b_O, b_out: output biases; None: there are none.
    """

    heads: int = 0
    mlp: MLPKind | None = None
    parallel: bool = False
    ln1: NormReadout | None = None
    ln2: NormReadout | None = None
    ln1_post: NormReadout | None = None
    ln2_post: NormReadout | None = None
    W_O: Float[Tensor, "head d_head d_model"] | None = None
    W_out: Float[Tensor, "d_mlp d_model"] | None = None
    b_O: Float[Tensor, "d_model"] | None = None
    b_out: Float[Tensor, "d_model"] | None = None


@dataclass(frozen=True)
class Readout:
    """How a model writes into its stream, and what it reads from it in the end.

    Attributes:
        d_model: width of the stream.
        layers: one entry for each layer.
        embeddings: short names of the activations whose sum enters layer 0.
        ln_final: the norm before the unembedding; None: there is none.
        W_U: unembedding; b_U: its bias (None: there is none).
        logit_cap: logits are cap * tanh(x / cap); None: they are not capped.
    """

    d_model: int
    layers: tuple[LayerReadout, ...]
    embeddings: tuple[str, ...] = ("embed",)
    ln_final: NormReadout | None = None
    W_U: Float[Tensor, "d_model d_vocab"] | None = None
    b_U: Float[Tensor, "d_vocab"] | None = None
    logit_cap: float | None = None

    def normed(self, stream: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """What the unembedding reads, were this the final stream: the whole final norm, by the stream's own scale."""
        return stream if self.ln_final is None else self.ln_final.applied(stream)

    def logits(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_vocab"]:
        """The logits of what the unembedding reads (after the final norm), bias and soft cap included."""
        logits = x @ self.unembedding().to(x)
        if self.b_U is not None:
            logits = logits + self.b_U.to(logits)
        return apply_softcap(logits, self.logit_cap)

    def unembedding(self) -> Float[Tensor, "d_model d_vocab"]:
        """W_U.

        Raises:
            MissingWeightsError: it is not here.
        """
        if self.W_U is None:
            raise MissingWeightsError(f"Reading the stream as logits needs W_U. {HOW_TO_GET_WEIGHTS}")
        return self.W_U


HOW_TO_GET_WEIGHTS = (
    "Save the cache with cache.save(path, weights=True), or load it with its model: "
    "ActivationCache.load(path, model=model)."
)


@singledispatch
def readout_of(model: object) -> Readout:
    """The Readout of a model: references to its weights as they are now, not copies.

    Raises:
        MissingWeightsError: for a model of this type none is defined.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer({"n_layers": 2, "d_model": 8, "d_head": 4, "n_ctx": 16, "d_vocab": 20})
        >>> readout_of(model).embeddings
        ('embed', 'pos_embed')
    """
    raise MissingWeightsError(
        f"A cache of a {type(model).__name__} cannot be split into parts: it is not known how such a model writes into "
        "its stream. Register a function that makes its Readout: readout_of.register(type, function)."
    )
