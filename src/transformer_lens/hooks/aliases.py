"""Further names of hooks, as classes declare them: `hook_aliases` maps a name to a dotted path, or to several."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol, runtime_checkable

from torch import nn

from transformer_lens.hooks.hook_point import HookPoint
from transformer_lens.hooks.names import NameDict
from transformer_lens.nested import get_nested_attr

Aliases = Mapping[str, str] | Mapping[str, str | list[str]]


@runtime_checkable
class HasAliases(Protocol):
    """Anything that declares further names of its hooks."""

    hook_aliases: Mapping[str, Any]


def resolve_alias(target_object: Any, requested_name: str, aliases: Aliases) -> Any | None:
    """What a further name stands for; None if `aliases` does not have the name.

    Args:
        target_object: where the paths begin.
        requested_name: the name.
        aliases: name -> dotted path, or paths of which the first that exists counts.

    Raises:
        AttributeError: the name is an alias, and nothing is at its path.

    Example:
        >>> from transformer_lens import TransformerBridge
        >>> bridge = TransformerBridge.boot_transformers("demo", device="cpu")
        >>> resolve_alias(bridge, "hook_embed", bridge.hook_aliases).name
        'embed.hook_out'
    """
    if requested_name not in aliases:
        return None
    paths = _paths(aliases[requested_name])
    for path in paths:
        with suppress(AttributeError):
            return get_nested_attr(target_object, path)
    raise AttributeError(
        f"{requested_name!r} stands for {' or '.join(map(repr, paths))}, and this {type(target_object).__name__} has "
        "no such attribute."
    )


def collect_aliases_recursive(module: nn.Module, prefix: str = "") -> dict[str, str]:
    """The further names that a module and the modules in it declare, each with the full path it stands for.

    Args:
        module: where to begin. An empty name stands for the module itself; of several paths the first that exists is
            taken.
        prefix: what stands before the names.

    Example:
        >>> class Part(nn.Module):
        ...     hook_aliases = {"hook_old": "hook_new"}
        >>> collect_aliases_recursive(nn.ModuleDict({"part": Part()}))
        {'part.hook_old': 'part.hook_new'}
    """
    found: dict[str, str] = {}
    for path, part in module.named_modules(prefix=prefix):
        if isinstance(part, HasAliases):
            for name, paths in part.hook_aliases.items():
                found[_join(path, name)] = _join(path, _first_there(part, _paths(paths)))
    return found


def _paths(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _join(prefix: str, name: str) -> str:
    return ".".join(part for part in (prefix, name) if part)


def _first_there(part: object, paths: list[str]) -> str:
    for path in paths[:-1]:
        with suppress(AttributeError):
            get_nested_attr(part, path)
            return path
    return paths[-1]


def build_alias_to_canonical_map(hook_dict: Mapping[str, HookPoint], prefix: str = "") -> dict[str, str | None]:
    """The further names in a dict of hook points, each with the full name that its point has.

    Args:
        hook_dict: name -> point; a model's `hook_dict` brings its other spellings.
        prefix: put before each further name.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> build_alias_to_canonical_map(model.hook_dict)["blocks.0.hook_in"]
        'blocks.0.hook_resid_pre'
    """
    others = hook_dict.aliases if isinstance(hook_dict, NameDict) else {}
    points = {**hook_dict, **{other: hook_dict[full] for other, full in others.items() if full in hook_dict}}
    return {f"{prefix}{name}": point.name for name, point in points.items() if point.name != name}
