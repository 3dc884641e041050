"""Norms with their two hook points: what they divide by, and what they have divided."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import layer_norm, rms_norm

from transformer_lens.config import HookedTransformerConfig
from transformer_lens.hooks import HookPoint, is_live


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


class Norm(nn.Module):
    """What all norms share: two hook points, and the normalisation between them, in float32 or wider."""

    def __init__(self, cfg: HookedTransformerConfig, length: int | None = None):
        super().__init__()
        self.eps = cfg.eps
        self.length = length or cfg.d_model
        self.hook_scale = HookPoint()  # [..., 1]
        self.hook_normalized = HookPoint()  # [..., length]

    def normalize(self, x: Float[Tensor, "... length"]) -> Float[Tensor, "... length"]:
        """x, centred and divided by its scale, in float32 or wider."""
        wide = _wide(x)
        if not is_live(self.hook_scale):
            return self._see_normalized(layer_norm(wide, wide.shape[-1:], eps=self.eps), x)
        variance, mean = torch.var_mean(wide, -1, correction=0, keepdim=True)
        scale = self.hook_scale((variance + self.eps).sqrt())
        return self._see_normalized((wide - mean) / scale, x)

    def _see_normalized(self, normalized: Tensor, x: Tensor) -> Tensor:
        if not is_live(self.hook_normalized):
            return normalized
        return _wide(self.hook_normalized(normalized.to(x.dtype)))

    def forward(self, x: Float[Tensor, "... length"]) -> Float[Tensor, "... length"]:
        """The normalised x."""
        return self.normalize(x).to(x.dtype)


class _RootMeanSquare(Norm):
    def normalize(self, x: Float[Tensor, "... length"]) -> Float[Tensor, "... length"]:
        """x divided by its root mean square, in float32 or wider."""
        wide = _wide(x)
        if not is_live(self.hook_scale):
            return self._see_normalized(rms_norm(wide, wide.shape[-1:], eps=self.eps), x)
        scale = self.hook_scale((wide.pow(2).mean(-1, keepdim=True) + self.eps).sqrt())
        return self._see_normalized(wide / scale, x)


class _Folded(Norm):
    """A norm without weights, which still reads as if it had weight one and bias zero."""

    _like: Tensor

    def __init__(self, cfg: HookedTransformerConfig, length: int | None = None):
        super().__init__(cfg, length)
        # NOTE: empty, so that it follows the model to devices and dtypes but holds nothing that could be overwritten.
        self.register_buffer("_like", torch.empty(0, dtype=cfg.dtype), persistent=False)

    @property
    def w(self) -> Float[Tensor, "length"]:
        """Ones: the weight is in the matrices that read this norm."""
        return self._like.new_ones(self.length)

    @property
    def b(self) -> Float[Tensor, "length"]:
        """Zeros: the bias, if there was one, is in the biases beside those matrices."""
        return self._like.new_zeros(self.length)


class LayerNormPre(_Folded):
    """Subtract the mean and divide by the standard deviation; weights are folded into what follows (arXiv 1607.06450).

    Computed in float32 or wider; the result has the input's dtype.
    """


class LayerNorm(Norm):
    """Layer norm with weight `w` and bias `b`, of length d_model unless told otherwise."""

    def __init__(self, cfg: HookedTransformerConfig, length: int | None = None):
        super().__init__(cfg, length)
        self.w = nn.Parameter(torch.ones(self.length, dtype=cfg.dtype))
        self.b = nn.Parameter(torch.zeros(self.length, dtype=cfg.dtype))

    def forward(self, x: Float[Tensor, "... length"]) -> Float[Tensor, "... length"]:
        """The normalised x, times w, plus b."""
        if is_live(self.hook_scale) or is_live(self.hook_normalized):
            return torch.addcmul(self.b, self.normalize(x), self.w).to(x.dtype)
        return layer_norm(x, x.shape[-1:], self.w, self.b, self.eps)


class RMSNormPre(_Folded, _RootMeanSquare):
    """Divide by the root mean square; the weight is folded into what follows (arXiv 1910.07467)."""


class RMSNorm(_RootMeanSquare):
    """RMS norm with weight `w`, of length d_model unless told otherwise."""

    def __init__(self, cfg: HookedTransformerConfig, length: int | None = None):
        super().__init__(cfg, length)
        self.w = nn.Parameter(torch.ones(self.length, dtype=cfg.dtype))

    def forward(self, x: Float[Tensor, "... length"]) -> Float[Tensor, "... length"]:
        """The normalised x, times w."""
        return (self.normalize(x) * self.w).to(x.dtype)


def folded(norm: Norm, cfg: HookedTransformerConfig) -> LayerNormPre | RMSNormPre:
    """A norm without weights that normalises like `norm`, with its hook points (and what is hooked there).

    Example:
        >>> cfg = HookedTransformerConfig(d_model=4, d_head=2, n_layers=1, n_ctx=8, d_vocab=9)
        >>> folded(LayerNorm(cfg), cfg).w
        tensor([1., 1., 1., 1.])
    """
    kind = RMSNormPre if isinstance(norm, _RootMeanSquare) else LayerNormPre
    pre = kind(cfg, norm.length)
    pre.eps = norm.eps
    weight = next(norm.parameters(), None)
    if weight is not None:
        pre.to(weight.device, weight.dtype)
    pre.hook_scale, pre.hook_normalized = norm.hook_scale, norm.hook_normalized
    return pre.train(norm.training)


def make_norm(cfg: HookedTransformerConfig, final: bool = False, after: bool = False) -> nn.Module:
    """The norm that the configuration names.

    Args:
        cfg: the configuration.
        final: it is the one before the unembedding.
        after: it stands after attention or the MLP; such a norm keeps its weights, for they cannot be folded.

    Example:
        >>> cfg = HookedTransformerConfig(d_model=4, d_head=2, n_layers=1, n_ctx=8, d_vocab=9, normalization_type="RMS")
        >>> make_norm(cfg)(torch.ones(1, 2, 4)).shape
        torch.Size([1, 2, 4])
    """
    kind = cfg.normalization_type
    if final and cfg.final_rms and kind is not None:
        kind = "RMSPre" if kind.endswith("Pre") else "RMS"
    if after and kind is not None:
        kind = kind.removesuffix("Pre")
    match kind:
        case "LN":
            return LayerNorm(cfg)
        case "LNPre":
            return LayerNormPre(cfg)
        case "RMS":
            return RMSNorm(cfg)
        case "RMSPre":
            return RMSNormPre(cfg)
    return nn.Identity()
