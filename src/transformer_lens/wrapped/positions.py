"""Whether positions counted from an attention mask may be given to a transformers model."""

from __future__ import annotations

import inspect

from torch import nn

# Methods by which a module finds positions of another kind than 0, 1, 2, ….
_OWN = ("get_rope_index", "create_position_ids_from_input_ids")
_POSITION_EMBEDDINGS = ("position_embeddings", "embed_positions")


def accepts_mask_derived_position_ids(model: nn.Module) -> bool:
    """Whether a model takes positions that count the tokens of its attention mask: 0 for the first of each row.

    It does if its forward has `position_ids`, or takes anything, and no part of it has positions of another kind:
    those that begin after the padding id (RoBERTa), or run along several axes (Qwen2-VL).

    Args:
        model: the model; on the meta device too.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel, RobertaConfig, RobertaForMaskedLM
        >>> import torch
        >>> with torch.device("meta"):
        ...     gpt2, roberta = GPT2LMHeadModel(GPT2Config(n_layer=1)), RobertaForMaskedLM(RobertaConfig())
        >>> accepts_mask_derived_position_ids(gpt2), accepts_mask_derived_position_ids(roberta)
        (True, False)
    """
    parameters = inspect.signature(model.forward).parameters
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    if "position_ids" not in parameters and not takes_any:
        return False
    return not any(_has_others(name, module) for name, module in model.named_modules())


def _has_others(name: str, module: nn.Module) -> bool:
    if any(method in vars(kind) for kind in type(module).__mro__ for method in _OWN):
        return True
    # NOTE: positions after the padding id leave its row to the embedding's own padding.
    embeds_positions = isinstance(module, nn.Embedding) and name.endswith(_POSITION_EMBEDDINGS)
    return embeds_positions and module.padding_idx is not None
