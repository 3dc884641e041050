"""What a norm computes: found by computing it from its input and comparing."""

from __future__ import annotations

from transformer_lens.specs.spec import Part, Weight
from transformer_lens.wrapped.places import NormPlace
from transformer_lens.wrapped.resolver.flow import same
from transformer_lens.wrapped.resolver.probe import Call

_EPS = ("eps", "variance_epsilon", "epsilon", "norm_eps", "rms_norm_eps")


def norm_place(call: Call, ours: str, rules: dict[str, Weight]) -> NormPlace:
    """Where a norm is and what it computes; notes its weights in `rules`. An eps of None: it is none that is known."""
    assert call.given is not None
    assert call.made is not None
    module, x = call.module, call.given.double()
    weight, bias = module._parameters.get("weight"), module._parameters.get("bias")
    for eps in [float(module.__dict__[name]) for name in _EPS if isinstance(module.__dict__.get(name), float)] or [
        1e-5
    ]:
        for centers in (False, True):
            wide = x - x.mean(-1, keepdim=True) if centers else x
            normalized = wide / (wide.pow(2).mean(-1, keepdim=True) + eps).sqrt()
            for offset in (0.0, 1.0):
                made = normalized
                if weight is not None:
                    if weight.ndim != 1 or weight.shape[0] != x.shape[-1]:
                        return NormPlace(call.path, ours, overwritten=call.made_changed)
                    made = made * (weight.double() + offset)
                if bias is not None:
                    made = made + bias.double()
                if not same(call.made, made.to(call.made.dtype)):
                    continue
                for leaf, vector, shift in (("w", "weight", offset), ("b", "bias", 0.0)):
                    if module._parameters.get(vector) is not None:
                        part = Part(f"{ours}.{leaf}", "... -> ...")
                        rules[f"{ours}.{leaf}"] = Weight(f"{call.path}.{vector}", (part,), offset=shift)
                return NormPlace(call.path, ours, centers, eps, call.made_changed)
    return NormPlace(call.path, ours, overwritten=call.made_changed)
