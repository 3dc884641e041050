"""What checks the library's annotations while tests run (see conftest.py)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from beartype import beartype
from beartype.roar import BeartypeDecorHintException
from jaxtyping import config


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, checking what it is given and what it returns; as it is where beartype cannot read a hint (Self)."""
    try:
        return beartype(function)
    except BeartypeDecorHintException:
        return function


@contextmanager
def unchecked() -> Iterator[None]:
    """Annotations are not checked in here, so that the library's own errors about wrong arguments can be seen."""
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", False)
