"""Configurations and tokenizers of the hub that transformers 5 refuses as they are written."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.dataclasses as hub_dataclasses
import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.utils import cached_file

from transformer_lens.errors import TransformerLensError

_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_SETTINGS = ("model_max_length", "padding_side", "truncation_side", "clean_up_tokenization_spaces", "chat_template")


def get_rotary_pct_from_config(config: Any) -> float:
    """Which part of each head's dimensions is rotated: 1.0 if the configuration does not say.

    Args:
        config: an object with `rotary_pct`, or with the `partial_rotary_factor` of transformers 5 in `rope_parameters`.

    Example:
        >>> get_rotary_pct_from_config(transformers.GPTNeoXConfig()), get_rotary_pct_from_config(None)
        (0.25, 1.0)
    """
    if (given := getattr(config, "rotary_pct", None)) is not None:
        return float(given)
    return float((getattr(config, "rope_parameters", None) or {}).get("partial_rotary_factor", 1.0))


def make_post_init_kwarg_tolerant(config_class: Any) -> None:
    """Nothing; afterwards a configuration class whose `__post_init__` takes no arguments can be made by transformers 5.

    That hands the fields that no base class knows to `__post_init__`. They are set first, then the class's own code
    runs, which may read them. Doing it twice is harmless.

    Example:
        >>> class Old(transformers.PreTrainedConfig):
        ...     def __post_init__(self):
        ...         self.twice = 2 * self.width
        >>> make_post_init_kwarg_tolerant(Old)
        >>> Old(width=3).twice
        6
    """
    own = config_class.__dict__.get("__post_init__")
    if own is None or "takes_any" in vars(own):
        return

    @functools.wraps(own)
    def post_init(self: Any, **kwargs: Any) -> None:
        super(config_class, self).__post_init__(**kwargs)
        own(self)

    vars(post_init)["takes_any"] = True
    config_class.__post_init__ = post_init


def autoconfig_with_remote_post_init_compat(model_id: str, auto_config: Any = None, **kwargs: Any) -> Any:
    """The configuration of a model, also where its own code or fields are of transformers 4.

    Two things that transformers refuses are tried again once: a configuration class of the model's own whose
    `__post_init__` takes no arguments, and one that pins an implementation of attention which cannot do what is asked.

    Args:
        model_id: a folder, or a name on the hub.
        auto_config: what loads it, by its `from_pretrained`; None: transformers' AutoConfig.
        kwargs: for that.

    Raises:
        TypeError, OSError, StrictDataclassError: what transformers raises for other reasons.

    Example:
        >>> from transformer_lens import demo
        >>> autoconfig_with_remote_post_init_compat(str(demo.folder())).model_type
        'gpt2'
    """
    loader = transformers.AutoConfig if auto_config is None else auto_config
    try:
        return loader.from_pretrained(model_id, **kwargs)
    except TypeError as error:
        if "__post_init__() got an unexpected keyword argument" not in str(error):
            raise
        make_post_init_kwarg_tolerant(_own_class(model_id, kwargs))
        return loader.from_pretrained(model_id, **kwargs)
    except StrictDataclassError as error:
        if "attn_implementation" not in str(error):
            raise
        return loader.from_pretrained(model_id, **{**kwargs, "attn_implementation": "eager"})


def _own_class(model_id: str, kwargs: dict[str, Any]) -> Any:
    """The configuration class that a model brings."""
    fields, _ = transformers.PreTrainedConfig.get_config_dict(model_id, **kwargs)
    where = {name: kwargs[name] for name in ("revision", "code_revision", "token", "cache_dir") if name in kwargs}
    return get_class_from_dynamic_module(fields["auto_map"]["AutoConfig"], model_id, **where)


def autotokenizer_with_special_token_compat(model_id: str, auto_tokenizer: Any = None, **kwargs: Any) -> Any:
    """The tokenizer of a model, also where it declares special tokens in a form that transformers 5 refuses.

    Then it is made from `tokenizer.json`, which holds them already, with the roles (bos, eos, …) that its
    configuration names.

    Args:
        model_id: a folder, or a name on the hub.
        auto_tokenizer: what loads it, by its `from_pretrained`; None: transformers' AutoTokenizer.
        kwargs: for that.

    Raises:
        TypeError, OSError: what transformers raises for other reasons.

    Example:
        >>> from transformer_lens import demo
        >>> autotokenizer_with_special_token_compat(str(demo.folder()))("The cat").input_ids[0] > 0
        True
    """
    loader = transformers.AutoTokenizer if auto_tokenizer is None else auto_tokenizer
    try:
        return loader.from_pretrained(model_id, **kwargs)
    except TypeError as error:
        if "special_tokens" not in str(error) and "AddedToken" not in str(error):
            raise
        where = {name: kwargs[name] for name in ("revision", "token", "cache_dir", "subfolder") if name in kwargs}
        file = cached_file(model_id, "tokenizer.json", **where)
        declared = json.loads(Path(str(cached_file(model_id, "tokenizer_config.json", **where))).read_text())
        known = {name: declared[name] for name in (*_ROLES, *_SETTINGS) if declared.get(name) is not None}
        roles = {name: value["content"] if isinstance(value, dict) else value for name, value in known.items()}
        return transformers.PreTrainedTokenizerFast(tokenizer_file=file, **roles)


def enable_hf_numeric_tower() -> None:
    """Nothing; afterwards configurations may write a whole number where huggingface_hub wants a float (`"factor": 1`).

    That changes huggingface_hub for this process; doing it twice is harmless, and it does nothing where whole numbers
    are taken already.

    Raises:
        TransformerLensError: huggingface_hub checks fields in a way that is not known here.

    Example:
        >>> enable_hf_numeric_tower()
        >>> hub_dataclasses.type_validator("factor", 1, float)
    """
    if _takes_whole_numbers():
        return
    strict: Callable[[str, Any, type], None] = vars(hub_dataclasses)["_validate_simple_type"]

    @functools.wraps(strict)
    def lenient(name: str, value: Any, expected_type: type) -> None:
        whole = expected_type is float and isinstance(value, int) and not isinstance(value, bool)
        strict(name, float(value) if whole else value, expected_type)

    vars(hub_dataclasses)["_validate_simple_type"] = lenient
    if not _takes_whole_numbers():
        raise TransformerLensError("This version of huggingface_hub checks types of fields in a way not known here.")


def _takes_whole_numbers() -> bool:
    try:
        hub_dataclasses.type_validator("probe", 1, float)
    except TypeError:
        return False
    return True
