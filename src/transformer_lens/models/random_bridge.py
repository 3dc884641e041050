"""Models whose weights were drawn rather than trained: the control of what is found in a trained one."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from transformer_lens.models.hooked_transformer import HookedTransformer
from transformer_lens.models.transformer_bridge import TransformerBridge


def random_init_bridge(
    model_name: str,
    *,
    seed: int,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device | None = None,
    **boot_kwargs: Any,
) -> TransformerBridge:
    """A bridge over a model of this architecture, its weights drawn as transformers initialises them.

    Args:
        model_name: whose configuration it has; its weights are not loaded.
        seed: of the draw; torch's own generator is left alone.
        dtype, device: of the weights.
        boot_kwargs: further arguments of `TransformerBridge.boot_transformers`.

    Example:
        >>> bridge = random_init_bridge("demo", seed=0)
        >>> bool((bridge.W_E == random_init_bridge("demo", seed=0).W_E).all())
        True
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TransformerBridge.boot_transformers(
            model_name, load_weights=False, dtype=dtype, device=device, **boot_kwargs
        )


@runtime_checkable
class _Draws(Protocol):
    """A module of torch's kind that draws its own weights (a convention; there is no base class)."""

    def reset_parameters(self) -> None: ...

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...


def reinitialized(model: nn.Module, seed: int) -> nn.Module:
    """A copy of a module with weights drawn anew, in evaluation mode; the module stays as it is.

    Every module inside that has `reset_parameters` draws its own, in their order; buffers are copied. A
    HookedTransformer is drawn as its configuration says. For a bridge see `random_init_bridge`.

    Args:
        model: of modules that can draw their weights, such as torch's own.
        seed: of the draw; torch's own generator is left alone.

    Raises:
        ValueError: parameters that no module would draw, so that they would stay trained.

    Example:
        >>> drawn = reinitialized(nn.Linear(2, 2), seed=0)
        >>> torch.equal(drawn.weight, reinitialized(nn.Linear(2, 2), seed=0).weight)
        True
    """
    if isinstance(model, HookedTransformer):
        cfg = deepcopy(model.cfg)
        cfg.seed, cfg.init_weights = seed, True
        return HookedTransformer(cfg, tokenizer=model.tokenizer).eval()
    copy = deepcopy(model)
    drawing = [part for part in copy.modules() if isinstance(part, _Draws)]
    drawn = {id(parameter) for part in drawing for parameter in part.parameters(recurse=False)}
    left = [name for name, parameter in copy.named_parameters() if id(parameter) not in drawn]
    if left:
        raise ValueError(
            f"{len(left)} parameters would stay as they are, since no module's reset_parameters draws them: "
            f"{', '.join(left[:3])}{', …' if len(left) > 3 else ''}. Draw them yourself; for a bridge: "
            "random_init_bridge."
        )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for part in drawing:
            part.reset_parameters()
    return copy.eval()
