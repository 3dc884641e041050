"""The parts of a bridge by name, for a function of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from transformer_lens.nested import set_nested_attr
from transformer_lens.wrapped.views import View

Components = dict[str, nn.Module]


def collect_all_components(model: nn.Module, components: Components) -> Components:
    """`components`, with each part of a bridge added by its name (`blocks.0.attn.q`), in the order of the tree.

    Args:
        model: the bridge.
        components: filled, and returned.

    Example:
        >>> from transformer_lens import TransformerBridge
        >>> bridge = TransformerBridge.boot_transformers("demo", device="cpu")
        >>> list(collect_all_components(bridge, {}))[:4]
        ['embed', 'pos_embed', 'blocks.0', 'blocks.0.ln1']
    """
    components.update(_views(model))
    return components


def collect_components_of_block_bridge(model: nn.Module, component: nn.Module, components: Components) -> Components:
    """`components`, with the parts of one block, or of all blocks, added by their full names.

    Args:
        model: the bridge.
        component: `bridge.blocks[3]`, or `bridge.blocks`.
        components: filled, and returned.

    Raises:
        ValueError: the component is no part of this model.

    Example:
        >>> from transformer_lens import TransformerBridge
        >>> bridge = TransformerBridge.boot_transformers("demo", device="cpu")
        >>> list(collect_components_of_block_bridge(bridge, bridge.blocks[1], {}))[:3]
        ['blocks.1', 'blocks.1.ln1', 'blocks.1.attn']
    """
    components.update(_views(component, _name_in(model, component)))
    return components


def collect_all_submodules_of_component(
    model: nn.Module, component: nn.Module, submodules: Components, block_prefix: str = ""
) -> Components:
    """`submodules`, with the parts inside a component added by their names within it (`q`).

    Args:
        model: the bridge.
        component: a part of it.
        submodules: filled, and returned.
        block_prefix: put before each name.

    Raises:
        ValueError: the component is no part of this model.

    Example:
        >>> from transformer_lens import TransformerBridge
        >>> bridge = TransformerBridge.boot_transformers("demo", device="cpu")
        >>> list(collect_all_submodules_of_component(bridge, bridge.blocks[0].attn, {}))
        ['q', 'k', 'v', 'o']
    """
    _name_in(model, component)
    submodules.update({f"{block_prefix}{name}": view for name, view in _views(component).items() if name})
    return submodules


def apply_fn_to_all_components(
    model: nn.Module, fn: Callable[[nn.Module], Any], components: Mapping[str, nn.Module] | None = None
) -> dict[str, Any]:
    """What `fn` returns for each part of a bridge, by name.

    Args:
        model: the bridge.
        fn: called with each part.
        components: the parts to call it with; None: all.

    Example:
        >>> from transformer_lens import TransformerBridge
        >>> bridge = TransformerBridge.boot_transformers("demo", device="cpu")
        >>> apply_fn_to_all_components(bridge, lambda part: type(part.original_component).__name__)["blocks.0.attn"]
        'GPT2Attention'
    """
    parts = collect_all_components(model, {}) if components is None else components
    return {name: fn(part) for name, part in parts.items()}


def replace_remote_component(replacement_component: nn.Module, remote_path: str, remote_model: nn.Module) -> None:
    """Put a module in the place of one of a transformers model.

    Args:
        replacement_component: the module.
        remote_path: where the other is ("transformer.h.0.mlp").
        remote_model: the model, which is changed. On a bridge, `bridge.blocks[0].mlp = module` does it and can restore
            the old one.

    Raises:
        AttributeError: nothing is at this path.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2))
        >>> replace_remote_component(nn.Identity(), "0", model)
        >>> model
        Sequential(
          (0): Identity()
        )
    """
    remote_model.get_submodule(remote_path)
    set_nested_attr(remote_model, remote_path, replacement_component)


def _views(module: nn.Module, prefix: str = "") -> Components:
    return {name: part for name, part in module.named_modules(prefix=prefix) if isinstance(part, View)}


def _name_in(model: nn.Module, component: nn.Module) -> str:
    names: list[str] = [name for name, part in model.named_modules() if part is component]
    if not names:
        raise ValueError(f"This {type(component).__name__} is no part of the model; give e.g. bridge.blocks[0].")
    return names[0]
