"""Optional packages: asked for when they are needed, with an error that says how to get them."""

from __future__ import annotations

from importlib import import_module, util
from typing import Any

from transformer_lens.errors import TransformerLensError


class MissingExtraError(TransformerLensError, ImportError):
    """Something was asked for that needs a package which is not installed."""


def is_library_available(name: str) -> bool:
    """Whether a package can be imported; it is not imported.

    Example:
        >>> is_library_available("torch"), is_library_available("no_such_package")
        (True, False)
    """
    return util.find_spec(name) is not None


def import_extra(name: str, purpose: str, install: str) -> Any:
    """The package `name`, which is not required.

    Args:
        name: the module to import.
        purpose: what needs it, the start of the error's sentence.
        install: what to install.

    Raises:
        MissingExtraError: it is not installed.

    Example:
        >>> import_extra("no_such_package", "A table", "pandas")
        Traceback (most recent call last):
        transformer_lens.extras.MissingExtraError: A table needs no_such_package: pip install "pandas".
    """
    if not is_library_available(name.partition(".")[0]):
        raise MissingExtraError(f'{purpose} needs {name}: pip install "{install}".')
    return import_module(name)
