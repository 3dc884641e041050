"""Attributes and dictionaries by dotted path, and lists of modules of one type."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any, Generic, TypeVar

from torch import nn

T = TypeVar("T")
Module = TypeVar("Module", bound=nn.Module)


def get_nested_attr(obj: Any, attr_str: str) -> Any:
    """The attribute at a dotted path; a number picks from a list of modules.

    Raises:
        AttributeError: an object on the way has no such attribute.

    Example:
        >>> from torch import nn
        >>> get_nested_attr(nn.Sequential(nn.Linear(2, 3)), "0.out_features")
        3
    """
    return reduce(getattr, attr_str.split("."), obj)


def set_nested_attr(obj: Any, attr_str: str, value: Any) -> None:
    """Set the attribute at a dotted path.

    Raises:
        AttributeError: an object on the way has no such attribute.

    Example:
        >>> from types import SimpleNamespace
        >>> outer = SimpleNamespace(inner=SimpleNamespace(size=1))
        >>> set_nested_attr(outer, "inner.size", 2)
        >>> outer.inner.size
        2
    """
    parent, _, name = attr_str.rpartition(".")
    setattr(get_nested_attr(obj, parent) if parent else obj, name, value)


def filter_dict_by_prefix(dictionary: Mapping[str, T], prefix: str) -> dict[str, T]:
    """The entries below a prefix, their keys without it.

    Args:
        dictionary: keys are dotted paths, as in a state dict.
        prefix: a path, with or without its last dot.

    Example:
        >>> filter_dict_by_prefix({"attn.W_Q": 1, "attn.W_K": 2, "attn2.W_Q": 3}, "attn")
        {'W_Q': 1, 'W_K': 2}
    """
    start = prefix if not prefix or prefix.endswith(".") else f"{prefix}."
    return {key.removeprefix(start): value for key, value in dictionary.items() if key.startswith(start)}


class TypedModuleList(nn.ModuleList, Generic[Module]):
    """A ModuleList that says what its modules are: `blocks: TypedModuleList[Block]`.

    Example:
        >>> [layer.out_features for layer in TypedModuleList([nn.Linear(2, 3)])]
        [3]
    """
