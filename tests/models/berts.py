"""Tiny random BERTs of transformers, and a tokenizer for them."""

import torch
import transformers

SIZES = {"vocab_size": 31, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 24, "max_position_embeddings": 12}  # fmt: skip
OURS = {"n_layers": 2, "d_model": 16, "d_head": 8, "d_mlp": 24, "n_ctx": 12, "d_vocab": 31, "act_fn": "gelu",
        "attention_dir": "bidirectional", "eps": 1e-12, "device": "cpu"}  # fmt: skip
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "dog",
    "ran",
    "big",
    "red",
    "paris",
    "is",
    "in",
]
MASK = torch.tensor([[1] * 7, [1] * 5 + [0] * 2, [1] * 3 + [0] * 4])
TYPES = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 0, 0], [0, 1, 1, 0, 0, 0, 0]])
TOKENS = torch.tensor([[2, 9, 8, 3, 17, 30, 3], [2, 5, 3, 6, 3, 0, 0], [2, 3, 3, 0, 0, 0, 0]])


def bert(kind="BertForPreTraining", seed=0, **fields):
    """A model of this class with every parameter drawn at random, norms about one."""
    config = transformers.BertConfig(**{**SIZES, **fields}, attn_implementation="eager")
    model = getattr(transformers, kind)(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator) * 0.4
            parameter.copy_(1 + drawn if "LayerNorm.weight" in name else drawn)
    return model


def tokenizer():
    """Words from id 5, between [CLS] and [SEP]; [MASK] is 4, padding 0."""
    return transformers.BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)})
