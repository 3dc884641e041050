"""Indirect objects: whether a model says "gave a drink to Mary" where John gave it.

Source: Wang et al., "Interpretability in the Wild", 2022.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from transformer_lens.demo.indirect_objects import FEW_TEMPLATES
from transformer_lens.demo.names import NAMES
from transformer_lens.demo.words import OBJECTS, PLACES
from transformer_lens.errors import MissingTokenizerError
from transformer_lens.text import TextCodec, TextError, Tokenizer
from transformer_lens.text.padding import pad_rows


def template_of(wording: str, *, subject_first: bool) -> str:
    """A wording of the demo model's task as a template of `IOIDataset`, the subject named first or second.

    Example:
        >>> template_of("When {A} and {B} met at the {place}, {S} gave {object} to", subject_first=True)
        'When [B] and [A] met at the [LOCATION], [B] gave [OBJECT] to [A]'
    """
    first, second = ("B", "A") if subject_first else ("A", "B")
    places = {"A": f"[{first}]", "B": f"[{second}]", "S": "[B]", "place": "[LOCATION]", "object": "[OBJECT]"}
    return f"{wording.format(**places)} [A]"


class IOIDataset(Dataset[dict[str, Tensor]]):
    """Sentences in which [B] gives something to [A], each as {"prompt", "IO", "S"}.

    "prompt" is the whole sentence, its last tokens "IO" (what [A] is called); "S" are the tokens of [B] in that place.

    Args:
        tokenizer: what the sentences are read with.
        templates: each has [A], [B] and any of the nouns' keys in brackets, and ends with " [A]".
        names: for [A] and [B]; two different ones are drawn for each sentence.
        nouns: words by key.
        num_samples: how many sentences.
        symmetric: follow each sentence with the same one, the two names exchanged; num_samples counts both.
        prepend_bos: start with BOS.
        seed: of the draw; None: another draw each time.

    Raises:
        TextError: a template lacks a name, does not end with [A], or has a key that is not among the nouns; fewer than
            two names; or, when the item is asked for, two names that the tokenizer cannot tell apart.

    Example:
        >>> from transformer_lens import demo
        >>> dataset = IOIDataset(demo.tokenizer(), num_samples=2, seed=0)
        >>> demo.tokenizer().decode(dataset[0]["prompt"][1:])
        'Then Benjamin had lunch with Barbara at the museum. Later, Barbara passed a book to Benjamin'
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        templates: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        nouns: Mapping[str, Sequence[str]] | None = None,
        num_samples: int = 1000,
        symmetric: bool = False,
        prepend_bos: bool = True,
        seed: int | None = None,
    ):
        self.codec = TextCodec(tokenizer)
        self.templates = list(templates or self.get_default_templates())
        self.names = list(names or self.get_default_names())
        self.nouns = {key: list(words) for key, words in (nouns or self.get_default_nouns()).items()}
        self.prepend_bos = prepend_bos
        for template in self.templates:
            _check(template, self.nouns)
        if len(set(self.names)) < 2:
            raise TextError(f"Two different names are needed; got {self.names}.")
        self._random = random.Random(seed)
        self.samples: list[dict[str, str]] = []
        while len(self.samples) < num_samples:
            self.samples += self.get_sample(symmetric)
        del self.samples[num_samples:]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, idx: int) -> dict[str, Tensor]:
        sample = self.samples[idx]
        start = sample["text"].removesuffix(sample["IO"])
        prompt, other = (
            self.codec.to_tokens(start + sample[role], prepend_bos=self.prepend_bos)[0] for role in ("IO", "S")
        )
        # NOTE: how a name is cut can depend on what stands before it, so names are not tokenized alone.
        first = next((i for i, (a, b) in enumerate(zip(prompt, other, strict=False)) if a != b), None)
        if first is None:
            raise TextError(f"To this tokenizer {sample['IO']!r} and {sample['S']!r} begin alike; choose other names.")
        return {"prompt": prompt, "IO": prompt[first:], "S": other[first:]}

    def get_sample(self, symmetric: bool = False) -> list[dict[str, str]]:
        """One sentence drawn anew, or two with the names exchanged: {"text", "IO", "S"}, names with their space."""
        template = self._random.choice(self.templates)
        for key, words in self.nouns.items():
            template = template.replace(f"[{key}]", self._random.choice(words))
        first, second = self._random.sample(self.names, 2)
        pairs = [(first, second), (second, first)] if symmetric else [(first, second)]
        return [
            {"text": template.replace("[A]", io).replace("[B]", s), "IO": f" {io}", "S": f" {s}"} for io, s in pairs
        ]

    @staticmethod
    def get_default_names() -> list[str]:
        """Common English first names, each one token in most vocabularies."""
        return list(NAMES)

    @staticmethod
    def get_default_templates() -> list[str]:
        """A few wordings, the subject named first in every other one."""
        return [template_of(wording, subject_first=i % 2 == 1) for i, wording in enumerate(FEW_TEMPLATES)]

    @staticmethod
    def get_default_nouns() -> dict[str, list[str]]:
        """Words for [LOCATION] and, with their article, for [OBJECT]."""
        return {"LOCATION": list(PLACES), "OBJECT": list(OBJECTS)}


def _check(template: str, nouns: Mapping[str, Sequence[str]]) -> None:
    keys = set(re.findall(r"\[(\w+)\]", template))
    if not template.endswith(" [A]") or not {"A", "B"} <= keys:
        raise TextError(f"A template names [A] and [B] and ends with ' [A]', the answer; got {template!r}.")
    if unknown := keys - {"A", "B"} - set(nouns):
        raise TextError(f"{template!r} has [{min(unknown)}], and nouns has only {', '.join(nouns)}.")


@torch.no_grad()
def ioi_eval(
    model: Any,
    dataset: Any = None,
    batch_size: int = 8,
    num_samples: int = 1000,
    tokenizer: Tokenizer | None = None,
    symmetric: bool = False,
) -> dict[str, float]:
    """The mean of logit(IO) - logit(S), "Logit Difference", and how often it is positive, "Accuracy".

    Where a name is several tokens, the first in which the two differ decides.

    Args:
        model: either host.
        dataset: items as `IOIDataset` gives them; None: one of the default sentences (seed 0).
        batch_size: sentences run at once.
        num_samples, symmetric: for the default sentences.
        tokenizer: for the default sentences; None: the model's.

    Raises:
        MissingTokenizerError: neither dataset nor tokenizer are given, and the model has no tokenizer.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> results = ioi_eval(HookedTransformer.from_pretrained("demo"), num_samples=40)
        >>> results["Accuracy"] > 0.9
        True
    """
    if dataset is None:
        dataset = IOIDataset(tokenizer_of(model, tokenizer), num_samples=num_samples, symmetric=symmetric, seed=0)
    differences: list[float] = []
    for start in range(0, len(dataset), batch_size):
        items = [dataset[i] for i in range(start, min(start + batch_size, len(dataset)))]
        differences += _differences(model, items).tolist()
    values = torch.tensor(differences, dtype=torch.float64)
    return {"Logit Difference": float(values.mean()), "Accuracy": float((values > 0).double().mean())}


def _differences(model: Any, items: Sequence[Mapping[str, Tensor]]) -> Float[Tensor, "item"]:
    tokens, mask = pad_rows([item["prompt"].tolist() for item in items], pad_id=0, device=model.W_E.device)
    logits = model(tokens, attention_mask=mask)
    found = []
    for row, item in zip(logits, items, strict=True):
        io, s = item["IO"], item["S"]
        shorter = min(len(io), len(s))
        shared = int((io[:shorter] == s[:shorter]).long().cumprod(0).sum())
        if shared == shorter:
            raise TextError(f"IO {io.tolist()} and S {s.tolist()} begin alike, so no token decides between them.")
        place = len(item["prompt"]) - len(io) + shared - 1
        found.append(row[place, io[shared]] - row[place, s[shared]])
    return torch.stack(found)


def tokenizer_of(model: Any, tokenizer: Tokenizer | None) -> Tokenizer:
    """The tokenizer that is given, or else the model's.

    Raises:
        MissingTokenizerError: there is neither.
    """
    found: Tokenizer | None = model.tokenizer if tokenizer is None else tokenizer
    if found is None:
        raise MissingTokenizerError("This evaluation reads text, and the model has no tokenizer: pass tokenizer=....")
    return found
