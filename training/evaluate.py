"""Prints the held-out results of a model folder: ``python training/evaluate.py training/runs/0/model``."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import GPT2LMHeadModel

from transformer_lens.demo import folder, tokenizer
from transformer_lens.demo.measures import find_circuit, head_scores, last_logits, task_results

QUOTED = (
    "The Eiffel Tower is in",
    "The Eiffel Tower is in the city of",
    "The Colosseum is in the city of",
    "The Colosseum is in",
    "The capital of France is",
    "When John and Mary went to the store, Mary gave a bottle to",
    "When Mary and John went to the store, John gave a drink to",
    "When John and Mary went to the shops, John gave the bag to",
    "Mary gave a book to John. John thanked",
    "Alice gave Bob a book. Bob thanked",
    "The war lasted from the year 1732 to the year 17",
    "The keys to the cabinet",
    "Monday, Tuesday, Wednesday,",
    "The quick brown fox jumps over the lazy",
    "Hello, my name is",
)


def main() -> None:
    """Reads the command line and prints the figures as JSON, then the completions of well-known prompts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=folder())
    parser.add_argument("--brief", action="store_true", help="one line of figures only")
    choice = parser.parse_args()
    model = GPT2LMHeadModel.from_pretrained(choice.folder, attn_implementation="eager").eval()
    results = {name: round(value, 3) for name, value in task_results(model).items()}
    scores = head_scores(model)
    circuit = {
        name: round(value, 3) if isinstance(value, float) else value
        for name, value in asdict(find_circuit(model)).items()
    }
    best = {name: round(score.max().item(), 3) for name, score in scores.items()}
    print(json.dumps({"results": results, "heads": best, "circuit": circuit}, indent=None if choice.brief else 1))
    for with_bos in (True, False):
        for prompt in QUOTED:
            print(f"{'bos' if with_bos else '   '} {prompt} ->{_top(model, prompt, with_bos)}")


def _top(model: GPT2LMHeadModel, prompt: str, with_bos: bool) -> str:
    words = tokenizer()
    front = words.bos_token if with_bos else ""
    logits = last_logits(model, words(front + prompt, return_tensors="pt")["input_ids"])[0]
    best = torch.topk(logits.softmax(-1), 3)
    return ", ".join(
        f"{words.decode([index])!r} {p:.2f}"
        for p, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    )


if __name__ == "__main__":
    main()
