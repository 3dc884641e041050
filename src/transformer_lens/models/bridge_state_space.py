"""The state space layers of a wrapped model."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from transformer_lens.cache.state_space import KNOWN, state_space_mixers
from transformer_lens.models.bridge_weights import BridgeWeights


@state_space_mixers.register
def bridge_state_space_mixers(model: BridgeWeights) -> Mapping[int, nn.Module]:
    """The layers of a bridge whose mixer is of a class with a known recurrence, and HF's module of each.

    Example:
        >>> from transformer_lens import TransformerBridge
        >>> bridge_state_space_mixers(TransformerBridge.boot_transformers("demo"))
        {}
    """
    found = {}
    for layer in range(model.cfg.n_layers):
        places = model.host.anatomy.layer(layer).mixer
        if places is not None:
            mixer = model.host.model.get_submodule(places.path.format(layer=layer))
            if type(mixer).__name__ in KNOWN:
                found[layer] = mixer
    return found
