"""The embedded model ``demo`` and the tasks it was trained on.

A small GPT-2 that ships with the package, so that every example runs offline on a model with real circuits: induction
heads, name movers, factual recall. Each task function gives a batch of `Prompts`, the same for the same arguments.
"""

from transformer_lens.demo.folder import BOS, folder, tokenizer
from transformer_lens.demo.grammar import agreement, pronouns
from transformer_lens.demo.indirect_objects import ioi, thanks
from transformer_lens.demo.knowledge import capitals, facts
from transformer_lens.demo.mixture import Document, documents
from transformer_lens.demo.prompts import Example, Prompts, Split
from transformer_lens.demo.series import greater_than, repeated_tokens, successors
from transformer_lens.demo.signatures import docstrings

__all__ = [
    "BOS",
    "Document",
    "Example",
    "Prompts",
    "Split",
    "agreement",
    "capitals",
    "docstrings",
    "documents",
    "facts",
    "folder",
    "greater_than",
    "ioi",
    "pronouns",
    "repeated_tokens",
    "successors",
    "thanks",
    "tokenizer",
]
