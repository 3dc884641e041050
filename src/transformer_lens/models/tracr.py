"""Programs that Tracr compiled to transformers (arXiv 2301.05062), as configurations and state dicts.

Tracr, JAX and Haiku are not imported: any object with the fields of Tracr's AssembledTransformerModel will do.

    model = tracr.compiler.compiling.compile_rasp_to_model(program, ...)
    bridge = TransformerBridge.boot_native(make_tracr_transformer_bridge_config(model))
    bridge.load_state_dict(make_tracr_transformer_bridge_state_dict(model))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.errors import ConfigurationError, TransformerLensError, nearest


class UnsupportedProgramError(TransformerLensError, NotImplementedError):
    """A compiled program of a kind that is not converted: numbers as outputs, or layer norms."""


class CompiledProgram(Protocol):
    """What is read of Tracr's AssembledTransformerModel.

    Attributes:
        params: Haiku's parameters, `params["transformer/layer_0/attn/query"]["w"]` and so on.
        model_config: num_heads, num_layers, key_size, mlp_hidden_size, layer_norm, causal.
        residual_labels: what each dimension of the stream means ("reverse_1:3").
        output_encoder: its `encoding_map` takes each possible output to a number.
    """

    params: Mapping[str, Mapping[str, Any]]
    model_config: Any
    residual_labels: list[str]
    output_encoder: Any


def infer_tracr_output_label(model: CompiledProgram) -> str:
    """The name of the variable that a program outputs: the one whose values are just the possible outputs.

    Raises:
        UnsupportedProgramError: its outputs are numbers, not categories.
        ConfigurationError: no variable has these values, or several have.

    Example:
        >>> from types import SimpleNamespace as Of
        >>> labels = ["one", "out:a", "out:b", "tokens:a"]
        >>> program = Of(residual_labels=labels, output_encoder=Of(encoding_map={"a": 0, "b": 1}))
        >>> infer_tracr_output_label(program)
        'out'
    """
    wanted = {str(value) for value in _outputs(model)}
    values: dict[str, set[str]] = {}
    for label in model.residual_labels:
        name, colon, value = label.rpartition(":")
        if colon:
            values.setdefault(name, set()).add(value)
    candidates = [name for name, held in values.items() if held == wanted]
    if len(candidates) != 1:
        raise ConfigurationError(
            f"Which variable the program outputs is not clear: of {', '.join(values) or 'none'}, these have its "
            f"values: {', '.join(candidates) or 'none'}. Give output_label."
        )
    return candidates[0]


def make_tracr_categorical_unembed(
    model: CompiledProgram, output_label: str | None = None, *, dtype: npt.DTypeLike = np.float32
) -> np.ndarray[Any, Any]:
    """W_U of a program, [d_model, d_vocab_out]: 1 from the dimension of each output's label to that output's number.

    Args:
        model: the compiled program.
        output_label: the variable it outputs; None: found by its values.
        dtype: of the matrix.

    Raises:
        UnsupportedProgramError, ConfigurationError: as `infer_tracr_output_label`; a value without a dimension.

    Example:
        >>> from types import SimpleNamespace as Of
        >>> program = Of(residual_labels=["one", "out:a", "out:b"], output_encoder=Of(encoding_map={"a": 1, "b": 0}))
        >>> make_tracr_categorical_unembed(program).tolist()
        [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    """
    name = infer_tracr_output_label(model) if output_label is None else output_label
    outputs = _outputs(model)
    unembed = np.zeros((len(model.residual_labels), len(outputs)), dtype=dtype)
    for value, number in outputs.items():
        label = f"{name}:{value}"
        if label not in model.residual_labels:
            raise ConfigurationError(
                f"The stream has no dimension {label!r}; output_label is the name of the variable that the program "
                f"outputs.{nearest(label, model.residual_labels)}"
            )
        unembed[model.residual_labels.index(label), number] = 1
    return unembed


def make_tracr_transformer_bridge_config(model: CompiledProgram) -> TransformerBridgeConfig:
    """The configuration of a program, for `TransformerBridge.boot_native` or a HookedTransformer.

    Raises:
        UnsupportedProgramError: its outputs are numbers, not categories.

    Example:
        >>> from types import SimpleNamespace as Of
        >>> table = {"embeddings": np.eye(3)}
        >>> sizes = Of(num_layers=0, num_heads=1, key_size=3, mlp_hidden_size=1, causal=False, layer_norm=False)
        >>> program = Of(params={"token_embed": table, "pos_embed": table}, model_config=sizes,
        ...              residual_labels=["one", "out:a", "out:b"], output_encoder=Of(encoding_map={"a": 0, "b": 1}))
        >>> cfg = make_tracr_transformer_bridge_config(program)
        >>> cfg.d_model, cfg.d_vocab_out, cfg.attention_dir
        (3, 2, 'bidirectional')
    """
    sizes = model.model_config
    d_vocab, d_model = np.shape(model.params["token_embed"]["embeddings"])
    return TransformerBridgeConfig(
        d_model=d_model,
        d_vocab=d_vocab,
        d_vocab_out=len(_outputs(model)),
        n_ctx=len(model.params["pos_embed"]["embeddings"]),
        n_layers=sizes.num_layers,
        n_heads=sizes.num_heads,
        d_head=sizes.key_size,
        d_mlp=sizes.mlp_hidden_size,
        act_fn="relu",
        attention_dir="causal" if sizes.causal else "bidirectional",
        normalization_type="LN" if sizes.layer_norm else None,
    )


def make_tracr_transformer_bridge_state_dict(
    model: CompiledProgram, output_label: str | None = None, *, dtype: torch.dtype = torch.float32
) -> dict[str, Float[Tensor, "..."]]:
    """The weights of a program under canonical names; `TransformerBridge.boot_native(cfg).load_state_dict` takes them.

    Args:
        model: the compiled program.
        output_label: the variable it outputs; None: found by its values.
        dtype: of the tensors.

    Raises:
        UnsupportedProgramError: outputs that are numbers, or layer norms.
        ConfigurationError: as `make_tracr_categorical_unembed`.

    Example:
        A program without layers, as above:

        >>> from types import SimpleNamespace as Of
        >>> table = {"embeddings": np.eye(3)}
        >>> sizes = Of(num_layers=0, num_heads=1, key_size=3, mlp_hidden_size=1, causal=False, layer_norm=False)
        >>> program = Of(params={"token_embed": table, "pos_embed": table}, model_config=sizes,
        ...              residual_labels=["one", "out:a", "out:b"], output_encoder=Of(encoding_map={"a": 0, "b": 1}))
        >>> make_tracr_transformer_bridge_state_dict(program)["unembed.W_U"].tolist()
        [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    """
    sizes = model.model_config
    if sizes.layer_norm:
        raise UnsupportedProgramError("A program with layer norms is not converted; Tracr compiles them without.")
    unembed = make_tracr_categorical_unembed(model, output_label)
    found: dict[str, Any] = {
        "embed.W_E": model.params["token_embed"]["embeddings"],
        "pos_embed.W_pos": model.params["pos_embed"]["embeddings"],
        "unembed.W_U": unembed,
        "unembed.b_U": np.zeros(unembed.shape[1]),
    }
    heads = {"head": sizes.num_heads, "d_head": sizes.key_size}
    for layer in range(sizes.num_layers):
        attention, mlp = f"transformer/layer_{layer}/attn", f"transformer/layer_{layer}/mlp"
        block = f"blocks.{layer}"
        for letter, name in (("Q", "query"), ("K", "key"), ("V", "value")):
            part = model.params[f"{attention}/{name}"]
            split = rearrange(np.asarray(part["w"]), "d_model (head d_head) -> head d_model d_head", **heads)
            found[f"{block}.attn.W_{letter}"] = split
            found[f"{block}.attn.b_{letter}"] = rearrange(
                np.asarray(part["b"]), "(head d_head) -> head d_head", **heads
            )
        out = model.params[f"{attention}/linear"]
        split = rearrange(np.asarray(out["w"]), "(head d_head) d_model -> head d_head d_model", **heads)
        found |= {f"{block}.attn.W_O": split, f"{block}.attn.b_O": out["b"]}
        for ours, name in (("in", "linear_1"), ("out", "linear_2")):
            part = model.params[f"{mlp}/{name}"]
            found |= {f"{block}.mlp.W_{ours}": part["w"], f"{block}.mlp.b_{ours}": part["b"]}
    return {name: torch.tensor(np.asarray(value), dtype=dtype) for name, value in found.items()}


def _outputs(model: CompiledProgram) -> Mapping[Any, int]:
    outputs: Mapping[Any, int] | None = getattr(model.output_encoder, "encoding_map", None)
    if outputs is None:
        raise UnsupportedProgramError(
            f"The outputs of this program are numbers ({type(model.output_encoder).__name__}), and only categories are "
            "converted: compile a program whose output is categorical."
        )
    return outputs
