"""How good a model is: its loss on texts and on repeated tokens, and its accuracy on small tasks."""

from transformer_lens.evals.answers import show_answer
from transformer_lens.evals.indirect_objects import IOIDataset, ioi_eval
from transformer_lens.evals.losses import evaluate, evaluate_on_dataset, induction_loss, sanity_check
from transformer_lens.evals.multiple_choice import Question, make_mmlu_data_loader, mmlu_eval
from transformer_lens.evals.text_loaders import (
    make_code_data_loader,
    make_owt_data_loader,
    make_pile_data_loader,
    make_text_data_loader,
    make_wiki_data_loader,
)

__all__ = [
    "IOIDataset",
    "Question",
    "evaluate",
    "evaluate_on_dataset",
    "induction_loss",
    "ioi_eval",
    "make_code_data_loader",
    "make_mmlu_data_loader",
    "make_owt_data_loader",
    "make_pile_data_loader",
    "make_text_data_loader",
    "make_wiki_data_loader",
    "mmlu_eval",
    "sanity_check",
    "show_answer",
]
