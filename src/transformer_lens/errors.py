"""The exceptions this library raises on purpose: one small tree, each also the built-in that old code catches."""

from collections.abc import Iterable
from difflib import get_close_matches


class TransformerLensError(Exception):
    """Anything this library refuses, with what came, what was possible and what to do."""


class UnknownNameError(TransformerLensError, KeyError):
    """A hook, cache or model name that does not exist; says the nearest ones."""

    def __str__(self) -> str:
        # NOTE: KeyError shows repr(argument); a sentence with line breaks must read as a sentence.
        return str(self.args[0]) if self.args else ""


class ConfigurationError(TransformerLensError, ValueError):
    """A configuration field that is unknown, contradicts another one, or cannot be honoured."""


class HookConflictError(TransformerLensError, ValueError):
    """Two hooks that cannot be computed together at one layer."""


class MissingTokenizerError(TransformerLensError, ValueError):
    """Text was given to a model that has no tokenizer."""


def nearest(name: str, known: Iterable[str], count: int = 5) -> str:
    """A sentence that names the entries of `known` most like `name`, or an empty string if none is alike."""
    matches = get_close_matches(name, list(known), n=count, cutoff=0.4)
    return f" Nearest: {', '.join(matches)}." if matches else ""
