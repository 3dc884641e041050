"""Settings of text that a model has and a call may override."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, TypeVar

T = TypeVar("T")

# NOTE: published code compares this name with None and passes either, so the two are one value.
USE_DEFAULT_VALUE: Final = None


def override_or_use_default_value(default_flag: T, override: T | None = None) -> T:
    """The override, or the default where there is none.

    Example:
        >>> override_or_use_default_value(True, None), override_or_use_default_value(True, False)
        (True, False)
    """
    return default_flag if override is None else override


class LocallyOverridenDefaults:
    """Inside `with`, a model whose text defaults are these.

    Args:
        model: the model; it is as before when the block ends, also by an exception.
        overrides: `prepend_bos` (whether rows start with BOS) and `padding_side` ("left" or "right"); None keeps the
            model's own.

    Raises:
        ValueError: another setting is named.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> with LocallyOverridenDefaults(model, prepend_bos=False):
        ...     model.to_tokens(" cat").shape
        torch.Size([1, 1])
        >>> model.to_tokens(" cat").shape
        torch.Size([1, 2])
    """

    def __init__(self, model: Any, **overrides: Any):
        known = ("prepend_bos", "padding_side")
        unknown = [name for name in overrides if name not in known]
        if unknown:
            raise ValueError(f"{', '.join(unknown)} cannot be overridden for a while; known: {', '.join(known)}.")
        self.model = model
        self.overrides = overrides

    def __enter__(self) -> None:
        cfg, codec = self.model.cfg, self.model.codec
        self._before = (cfg.default_prepend_bos, codec)
        cfg.default_prepend_bos = override_or_use_default_value(
            cfg.default_prepend_bos, self.overrides.get("prepend_bos")
        )
        side = override_or_use_default_value(codec.default_padding_side, self.overrides.get("padding_side"))
        self.model.codec = replace(codec, default_prepend_bos=cfg.default_prepend_bos, default_padding_side=side)

    def __exit__(self, *error: object) -> None:
        self.model.cfg.default_prepend_bos, self.model.codec = self._before
