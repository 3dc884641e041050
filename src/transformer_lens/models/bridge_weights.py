"""The weights of a wrapped model under the field's names, read from HF's parameters at each call."""

from __future__ import annotations

from torch import Tensor, nn

from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.errors import TransformerLensError
from transformer_lens.weights.stacked import StackedWeights
from transformer_lens.wrapped.host import WrappedHost


class BridgeWeights(StackedWeights):
    """`W_Q`, `b_O` and so on of a bridge. One layer's is `bridge.blocks[3].attn.W_Q`, which can be assigned too."""

    host: WrappedHost
    cfg: TransformerBridgeConfig
    blocks: nn.ModuleList

    def _weight(self, part: str, name: str, layer: int = 0) -> Tensor:
        prefix = f"blocks.{{layer}}.{part}." if part in ("attn", "mlp") else f"{part}."
        routed = part == "mlp" and bool(self.cfg.num_experts)
        if routed:
            prefix, name = f"{prefix}experts.{{expert}}.", f"{name}.weight"
        found = self.host.weights.find(prefix, name, layer)
        if found is None:
            raise TransformerLensError(f"{self.host.anatomy.name} has no {name}.")
        return found.transpose(-1, -2) if routed else found

    @property
    def all_head_labels(self) -> list[str]:
        """L0H0, L0H1, … in layer order (a property here, a method of HookedTransformer, as code for each expects)."""
        return self._head_labels()
