"""Norms with their two hook points: what they divide by, and what they have divided."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import layer_norm, rms_norm

from transformer_lens.config import HookedTransformerConfig
from transformer_lens.hooks import HookPoint, is_live


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


class LayerNormPre(nn.Module):
    """Subtract the mean and divide by the standard deviation; weights are folded into what follows (arXiv 1607.06450).

    Computed in float32 or wider; the result has the input's dtype.
    """

    def __init__(self, cfg: HookedTransformerConfig):
        super().__init__()
        self.eps = cfg.eps
        self.hook_scale = HookPoint()  # [..., 1]
        self.hook_normalized = HookPoint()  # [..., length]

    def normalize(self, x: Float[Tensor, "... length"]) -> Float[Tensor, "... length"]:
        """x, centred and divided by its scale, in float32 or wider."""
        wide = _wide(x)
        if not is_live(self.hook_scale):
            return self._see_normalized(layer_norm(wide, wide.shape[-1:], eps=self.eps), x)
        centred = wide - wide.mean(-1, keepdim=True)
        scale = self.hook_scale((centred.pow(2).mean(-1, keepdim=True) + self.eps).sqrt())
        return self._see_normalized(centred / scale, x)

    def _see_normalized(self, normalized: Tensor, x: Tensor) -> Tensor:
        if not is_live(self.hook_normalized):
            return normalized
        return _wide(self.hook_normalized(normalized.to(x.dtype)))

    def forward(self, x: Float[Tensor, "... length"]) -> Float[Tensor, "... length"]:
        """The normalised x."""
        return self.normalize(x).to(x.dtype)


class LayerNorm(LayerNormPre):
    """Layer norm with weight `w` and bias `b`, of length d_model unless told otherwise."""

    def __init__(self, cfg: HookedTransformerConfig, length: int | None = None):
        super().__init__(cfg)
        self.w = nn.Parameter(torch.ones(length or cfg.d_model, dtype=cfg.dtype))
        self.b = nn.Parameter(torch.zeros(length or cfg.d_model, dtype=cfg.dtype))

    def forward(self, x: Float[Tensor, "... length"]) -> Float[Tensor, "... length"]:
        """The normalised x, times w, plus b."""
        if is_live(self.hook_scale) or is_live(self.hook_normalized):
            return (self.normalize(x) * self.w + self.b).to(x.dtype)
        return layer_norm(x, x.shape[-1:], self.w, self.b, self.eps)


class RMSNormPre(LayerNormPre):
    """Divide by the root mean square; the weight is folded into what follows (arXiv 1910.07467)."""

    def normalize(self, x: Float[Tensor, "... length"]) -> Float[Tensor, "... length"]:
        """x divided by its scale, in float32 or wider."""
        wide = _wide(x)
        if not is_live(self.hook_scale):
            return self._see_normalized(rms_norm(wide, wide.shape[-1:], eps=self.eps), x)
        scale = self.hook_scale((wide.pow(2).mean(-1, keepdim=True) + self.eps).sqrt())
        return self._see_normalized(wide / scale, x)


class RMSNorm(RMSNormPre):
    """RMS norm with weight `w`, of length d_model unless told otherwise."""

    def __init__(self, cfg: HookedTransformerConfig, length: int | None = None):
        super().__init__(cfg)
        self.w = nn.Parameter(torch.ones(length or cfg.d_model, dtype=cfg.dtype))

    def forward(self, x: Float[Tensor, "... length"]) -> Float[Tensor, "... length"]:
        """The normalised x, times w."""
        return (self.normalize(x) * self.w).to(x.dtype)


def make_norm(cfg: HookedTransformerConfig, final: bool = False) -> nn.Module:
    """The norm that the configuration names; `final` for the one before the unembedding.

    Example:
        >>> cfg = HookedTransformerConfig(d_model=4, d_head=2, n_layers=1, n_ctx=8, d_vocab=9, normalization_type="RMS")
        >>> make_norm(cfg)(torch.ones(1, 2, 4)).shape
        torch.Size([1, 2, 4])
    """
    kind = cfg.normalization_type
    if final and cfg.final_rms and kind is not None:
        kind = "RMSPre" if kind.endswith("Pre") else "RMS"
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
