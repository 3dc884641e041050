"""Where the parts of one transformers model are: module paths and weight rules by canonical name, from a spec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from transformer_lens.config import HookedTransformerConfig
from transformer_lens.specs.reading import HFConfig
from transformer_lens.specs.spec import Spec, Weight
from transformer_lens.weights.layouts import from_canonical, to_canonical
from transformer_lens.wrapped.columns import Columns, columns
from transformer_lens.wrapped.stored import refuse_unplain, weight_of

_LAYER = "blocks.{layer}."
# A bias -> the matrix beside it, and which of that matrix's axes it has.
_BIASES = {
    "b_Q": ("W_Q", (0, 2)), "b_K": ("W_K", (0, 2)), "b_V": ("W_V", (0, 2)), "b_O": ("W_O", (2,)),
    "b_in": ("W_in", (1,)), "b_out": ("W_out", (1,)), "b_U": ("W_U", (1,)),
}  # fmt: skip


@dataclass
class Anatomy:
    """What a spec says about the module tree of one model.

    Attributes:
        spec: the family.
        config: the HF configuration.
        cfg: the same as fields of ours.
        sizes: lengths of the axes that layouts name.
        rules: canonical template -> the HF tensor that holds it.
        shared: canonical templates whose tensor another one holds too (one norm for attention and MLP).
    """

    spec: Spec
    config: HFConfig
    cfg: HookedTransformerConfig
    sizes: Mapping[str, int]

    def __post_init__(self) -> None:
        self.rules: dict[str, Weight] = {}
        self.shared: set[str] = set()
        for weight in self.spec.weights_for(self.config):
            for part in weight.parts:
                self.rules[part.ours] = weight
            for copy in weight.copies:
                self.rules[copy] = weight
                self.shared.add(copy)

    @property
    def block(self) -> str:
        """The path of a layer, with `{layer}`."""
        path = next(weight.hf for weight in self.rules.values() if weight.per_layer)
        return path[: path.index("{layer}") + len("{layer}")]

    def path(self, ours: str) -> str | None:
        """The HF module that keeps a matrix ("blocks.{layer}.attn.W_Q") or is a norm ("ln_final"), or None."""
        rule = self.rules.get(ours) or self.rules.get(f"{ours}.w")
        if rule is not None:
            return rule.hf.rpartition(".")[0]
        return self.spec.modules.get(ours)

    def own_path(self, ours: str) -> str | None:
        """As `path`, but None for a norm that is another one's too."""
        return None if f"{ours}.w" in self.shared else self.path(ours)

    @property
    def attention(self) -> str:
        """The path of attention, with `{layer}`."""
        return str(self.path(f"{_LAYER}attn.W_O")).rpartition(".")[0]

    @property
    def routed(self) -> bool:
        """Whether the MLPs are mixtures of experts."""
        return f"{_LAYER}mlp.W_gate.weight" in self.rules

    @property
    def mlp(self) -> str | None:
        """The path of the MLP, with `{layer}`; None where its layers stand in the block itself (OPT)."""
        inner = f"{_LAYER}mlp.W_gate.weight" if self.routed else f"{_LAYER}mlp.W_out"
        path = str(self.path(inner)).rpartition(".")[0]
        return None if path == self.block else path

    def columns(self, ours: str) -> Columns:
        """Where a matrix's activation lies in its module's input or output."""
        return columns(self.rules[ours], ours, self.sizes)

    def multiplier(self, what: str) -> float:
        """What HF multiplies "embed", "attn" or "mlp" by after the module that makes it."""
        factor = self.spec.multiplied.get(what)
        return 1.0 if factor is None else self.spec.factors[factor](self.config)


class Weights:
    """The canonical weights of a transformers model: views of its parameters where layouts allow.

    Args:
        anatomy: where they are.
        model: the model.
    """

    def __init__(self, anatomy: Anatomy, model: nn.Module):
        self.anatomy = anatomy
        self.model = model

    def has(self, ours: str) -> bool:
        """Whether the model has a tensor for this canonical template."""
        return ours in self.anatomy.rules

    def _tensor(self, rule: Weight, layer: int) -> Tensor:
        path, _, leaf = rule.hf.format(layer=layer, expert=0).rpartition(".")
        return weight_of(self.model.get_submodule(path), leaf, path)

    def factor(self, rule: Weight) -> float:
        """What a rule's tensors are multiplied by on their way to canonical."""
        return self.anatomy.spec.factors[rule.times](self.anatomy.config) if rule.times else 1.0

    def read(self, ours: str, layer: int = 0) -> Float[Tensor, "..."]:
        """The canonical tensor of a template."""
        rule = self.anatomy.rules[ours]
        return to_canonical(rule, self._tensor(rule, layer), self.anatomy.sizes, self.factor(rule))[ours]

    def find(self, prefix: str, name: str, layer: int = 0) -> Float[Tensor, "..."] | None:
        """The canonical tensor `prefix + name`: zeros for a bias that the model has not; None if it is no weight."""
        if self.has(prefix + name):
            return self.read(prefix + name, layer)
        matrix, axes = _BIASES.get(name, ("", ()))
        if not self.has(prefix + matrix):
            return None
        like = self.read(prefix + matrix, layer)
        return like.new_zeros([like.shape[axis] for axis in axes])

    @torch.no_grad()
    def write(self, ours: str, value: Float[Tensor, "..."], layer: int = 0) -> None:
        """Write a canonical tensor into the parameter that holds it.

        Raises:
            ValueError: it has another shape.
            UnreadableWeightError: it is quantised, has an adapter, or is not loaded here.
        """
        rule = self.anatomy.rules[ours]
        path, _, leaf = rule.hf.format(layer=layer, expert=0).rpartition(".")
        refuse_unplain(
            [(path, self.model.get_submodule(path), leaf)], f"Assigning {ours.replace('{layer}', str(layer))}"
        )
        tensor, factor = self._tensor(rule, layer), self.factor(rule)
        parts = to_canonical(rule, tensor, self.anatomy.sizes, factor)
        if parts[ours].shape != value.shape:
            raise ValueError(
                f"{ours.replace('{layer}', str(layer))} has shape {tuple(parts[ours].shape)}; got {tuple(value.shape)}."
            )
        parts[rule.parts[0].ours if ours in rule.copies else ours] = value.to(tensor)
        whole = from_canonical(rule, parts, self.anatomy.sizes, factor)
        if rule.skip_rows:
            whole[: rule.skip_rows] = tensor[: rule.skip_rows]
        # NOTE: new memory. The old may be another model's too (see `enable_compatibility_mode`), which must not change.
        tensor.data = whole.contiguous()
