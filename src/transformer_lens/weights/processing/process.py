"""The steps of weight processing over canonical states, and all of them in order.

A state is a mapping from the names of `HookedTransformer.state_dict()` to tensors. Each function replaces entries of
the state it is given and returns it; tensors are never written to, so a state may hold a model's own parameters.
"""

import copy
import warnings
from collections.abc import Callable
from functools import partial

from transformer_lens.config import HookedTransformerConfig
from transformer_lens.weights.processing.attention import fold_values, refactor
from transformer_lens.weights.processing.centering import center_logits, center_writing
from transformer_lens.weights.processing.norms import fold_norm
from transformer_lens.weights.processing.parts import Part, State, Step, apply
from transformer_lens.weights.processing.refusals import STEPS, refusals


class ProcessingWarning(UserWarning):
    """A step of weight processing was asked for and left out, because it would change what the model computes."""


def process(
    state: State,
    cfg: HookedTransformerConfig,
    *,
    fold_ln: bool = True,
    center_writing_weights: bool = True,
    center_unembed: bool = True,
    fold_value_biases: bool = True,
    refactor_factored_attn_matrices: bool = False,
) -> tuple[State, HookedTransformerConfig]:
    """The state with these steps done, in this order, and the configuration that goes with it (a copy).

    Log-probabilities stay the same. A step that would change them is left out with a ProcessingWarning. Layer by layer
    in float32 (float64 stays), cast back once; memory beyond the state is about one layer. Doing it twice is harmless.

    Args:
        state: canonical weights; its entries are replaced. Missing biases read as zeros.
        cfg: what the model is; unchanged.
        fold_ln: move the weights of norms into what reads them; normalization_type becomes "LNPre" or "RMSPre".
        center_writing_weights: take the mean over d_model out of all that is written into the stream.
        center_unembed: take the mean over the vocabulary out of W_U and b_U.
        fold_value_biases: move b_V through W_O into b_O.
        refactor_factored_attn_matrices: rewrite each head in the basis of its singular vectors.

    Example:
        >>> import torch
        >>> cfg = HookedTransformerConfig(d_model=2, d_head=1, n_layers=0, n_ctx=8, d_vocab=3)
        >>> weights = {"ln_final.w": torch.tensor([2.0, 3.0]), "unembed.W_U": torch.eye(2, 3)}
        >>> weights, folded = process(weights, cfg)
        >>> list(weights), folded.normalization_type
        (['unembed.W_U'], 'LNPre')
    """
    asked = dict(
        zip(
            STEPS,
            (fold_ln, center_writing_weights, center_unembed, fold_value_biases, refactor_factored_attn_matrices),
            strict=True,
        )
    )
    done = _allowed(state, cfg, [step for step in STEPS if asked[step]])
    apply(state, [_step(name, cfg) for name in done])
    return state, _folded(cfg) if "fold_ln" in done else cfg


def fold_layer_norm(
    state: State, cfg: HookedTransformerConfig, fold_biases: bool = True, center_weights: bool = True
) -> State:
    """The state with the weights of ln1, ln2, ln_final (and a norm inside the MLP) moved into what reads them.

    Norms after attention or MLP, on queries and keys, and after the embedding stay: nothing linear reads them alone.

    Args:
        state: canonical weights; its entries are replaced, and those of folded norms removed.
        cfg: what the model is; the caller sets normalization_type to "LNPre" or "RMSPre".
        fold_biases: False says that norms have no bias.
        center_weights: take the mean over d_model out of what reads a layer norm (never an RMS norm).

    Raises:
        WeightsError: fold_biases=False where a norm has a bias that is not zero.

    Example:
        >>> import torch
        >>> cfg = HookedTransformerConfig(d_model=2, d_head=1, n_layers=0, n_ctx=8, d_vocab=3)
        >>> state = {"ln_final.b": torch.tensor([1.0, 2.0]), "unembed.W_U": torch.eye(2, 3)}
        >>> fold_layer_norm(state, cfg)["unembed.b_U"]
        tensor([1., 2., 0.])
    """
    return _alone(state, cfg, "fold_ln", fold_biases=fold_biases, center_weights=center_weights)


def center_writing_weights(state: State, cfg: HookedTransformerConfig) -> State:
    """The state with the mean over d_model taken out of all that is written into the stream: W_E, W_pos, W_O, W_out.

    Example:
        >>> import torch
        >>> cfg = HookedTransformerConfig(d_model=2, d_head=1, n_layers=0, n_ctx=8, d_vocab=1)
        >>> center_writing_weights({"embed.W_E": torch.tensor([[1.0, 3.0]])}, cfg)["embed.W_E"]
        tensor([[-1.,  1.]])
    """
    return _alone(state, cfg, "center_writing_weights")


def center_unembed(state: State, cfg: HookedTransformerConfig) -> State:
    """The state with the mean over the vocabulary taken out of W_U and b_U; logits shift by a constant per position.

    Example:
        >>> import torch
        >>> cfg = HookedTransformerConfig(d_model=2, d_head=1, n_layers=0, n_ctx=8, d_vocab=3)
        >>> center_unembed({"unembed.b_U": torch.tensor([1.0, 2.0, 6.0])}, cfg)["unembed.b_U"]
        tensor([-2., -1.,  3.])
    """
    return _alone(state, cfg, "center_unembed")


def fold_value_biases(state: State, cfg: HookedTransformerConfig) -> State:
    """The state with b_V moved through W_O into b_O; b_V is then zero.

    Example:
        >>> import torch
        >>> cfg = HookedTransformerConfig(d_model=2, d_head=1, n_layers=1, n_ctx=8, d_vocab=3)
        >>> state = {"blocks.0.attn.b_V": torch.tensor([[3.0]]), "blocks.0.attn.W_O": torch.tensor([[[1.0, 2.0]]])}
        >>> fold_value_biases(state, cfg)["blocks.0.attn.b_O"]
        tensor([3., 6.])
    """
    return _alone(state, cfg, "fold_value_biases")


def refactor_factored_attn_matrices(state: State, cfg: HookedTransformerConfig) -> State:
    """The state with each head in the basis of its singular vectors, largest first.

    W_Q · W_K^T is split evenly between the two, W_V takes all of W_V · W_O, so that the rows of W_O are orthonormal.
    b_V moves into b_O. The sign of each vector is fixed by the largest entry of W_Q or W_V, which is positive.

    Example:
        >>> import torch
        >>> cfg = HookedTransformerConfig(d_model=2, d_head=1, n_layers=1, n_ctx=8, d_vocab=3)
        >>> state = {f"blocks.0.attn.W_{x}": torch.tensor([[[3.0], [0.0]], [[1.0], [0.0]]]) for x in "QKV"}
        >>> state["blocks.0.attn.W_O"] = torch.tensor([[[0.0, 2.0]], [[0.0, 1.0]]])
        >>> state = refactor_factored_attn_matrices(state, cfg)
        >>> state["blocks.0.attn.W_V"][:, 0, 0], state["blocks.0.attn.W_O"][:, 0, 1]
        (tensor([6., 1.]), tensor([1., 1.]))
    """
    return _alone(state, cfg, "refactor_factored_attn_matrices")


def _alone(state: State, cfg: HookedTransformerConfig, name: str, **options: bool) -> State:
    apply(state, [_step(allowed, cfg, **options) for allowed in _allowed(state, cfg, [name])])
    return state


def _allowed(state: State, cfg: HookedTransformerConfig, asked: list[str]) -> list[str]:
    refused = refusals(state, cfg)
    for step in asked:
        if step in refused:
            warnings.warn(
                f"{step} is left out: {refused[step]}. Pass {step}=False to say so.", ProcessingWarning, stacklevel=3
            )
    return [step for step in asked if step not in refused]


def _step(name: str, cfg: HookedTransformerConfig, fold_biases: bool = True, center_weights: bool = True) -> Step:
    steps: dict[str, Callable[[Part], None]] = {
        "fold_ln": partial(_fold_norms, cfg=cfg, fold_biases=fold_biases, center_weights=center_weights),
        "center_writing_weights": partial(
            center_writing, positions_join_stream=cfg.positional_embedding_type != "shortformer"
        ),
        "center_unembed": center_logits,
        "fold_value_biases": fold_values,
        "refactor_factored_attn_matrices": refactor,
    }
    return steps[name]


def _fold_norms(part: Part, cfg: HookedTransformerConfig, fold_biases: bool, center_weights: bool) -> None:
    layer_norms = cfg.normalization_type in ("LN", "LNPre")
    mean_is_zero = {
        "ln1": layer_norms,
        "ln2": layer_norms,
        "mlp.ln": True,  # a layer norm in every model
        "ln_final": layer_norms and not cfg.final_rms,
    }
    for norm, zero in mean_is_zero.items():
        fold_norm(part, norm, mean_is_zero=zero, fold_biases=fold_biases, center_weights=center_weights,
                  gate_biases=cfg.gated_mlp_biases)  # fmt: skip


def _folded(cfg: HookedTransformerConfig) -> HookedTransformerConfig:
    cfg = copy.copy(cfg)
    if cfg.normalization_type in ("LN", "RMS"):
        cfg.normalization_type += "Pre"
    return cfg
