"""The view tree of a wrapped model, grown from its anatomy: which hook points there are, and where they sit."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from transformer_lens.wrapped.attention import AttentionPart, Inner
from transformer_lens.wrapped.columns import Columns
from transformer_lens.wrapped.experts import RouterPart
from transformer_lens.wrapped.host import WrappedHost
from transformer_lens.wrapped.norms import NormPart
from transformer_lens.wrapped.sites import Activation, HeadInputs, Result, SharedHeadInput, Site, Slot, Stream
from transformer_lens.wrapped.views import View, hook_point

_LAYER = "blocks.{layer}."
# Canonical matrix -> the part of the MLP that people know it by.
_MLP_PARTS = {"gate": "W_gate", "in": "W_in", "out": "W_out"}


def grow(host: WrappedHost, root: nn.Module) -> None:
    """Put the views of a model into `root`, and their slots into `host`, in the order in which a pass comes by."""
    anatomy, n_layers = host.anatomy, host.anatomy.cfg.n_layers
    ends = _Grower(host, layer=-1)
    embed = ends.view(root, "embed", ends.path("embed.W_E"), "embed.")
    ends.slot(embed, "hook_in", Activation(embed.path, after=False))
    ends.slot(embed, "hook_out", Activation(embed.path, times=anatomy.multiplier("embed")))
    if "pos_embed.W_pos" in anatomy.rules:
        positions = ends.view(root, "pos_embed", ends.path("pos_embed.W_pos"), "pos_embed.")
        ends.slot(positions, "hook_out", Activation(positions.path))
    if anatomy.path("embed.ln") is not None:
        ends.norm(root, "embed_ln", "embed.ln", kind="LN")
    blocks = nn.ModuleList(_Grower(host, layer).block() for layer in range(n_layers))
    root.add_module("blocks", blocks)
    after = _Grower(host, layer=n_layers)
    if anatomy.path("ln_final") is not None:
        after.norm(root, "ln_final", "ln_final", kind="RMS" if anatomy.cfg.final_rms else None)
    unembed = after.view(root, "unembed", after.path("unembed.W_U"), "unembed.")
    after.slot(unembed, "hook_in", Activation(unembed.path, after=False))
    after.slot(unembed, "hook_out", Activation(unembed.path))


class _Grower:
    """Grows the views of one layer, or of what stands before (-1) or after (n_layers) them."""

    def __init__(self, host: WrappedHost, layer: int):
        self.host = host
        self.anatomy = host.anatomy
        self.layer = layer
        self.block_path = self.anatomy.block.format(layer=max(layer, 0))
        self.rows = self.block_path if 0 <= layer < self.anatomy.cfg.n_layers else ""

    def path(self, ours: str) -> str:
        path = self.anatomy.path(ours)
        assert path is not None, ours
        return path.format(layer=self.layer)

    def view(self, parent: nn.Module, name: str, path: str | None, prefix: str = "") -> View:
        view = View(self.host, path, prefix, max(self.layer, 0))
        nn.Module.__setattr__(parent, name, view)
        return view

    def _changes(self, part: str) -> bool:
        return f"{part}.hook_out" in self.anatomy.spec.overwritten

    def slot(self, view: nn.Module, leaf: str, site: Site) -> None:
        hook_point(view, leaf)
        self.host.slots.append(Slot(view, leaf, site, self.layer))

    # --- parts ----------------------------------------------------------------------------------------------------

    def norm(self, parent: nn.Module, name: str, ours: str, kind: str | None = None, entry: Site | None = None) -> View:
        """A norm: what enters it, what it divides by, what it has divided, what leaves it."""
        path, weights, cfg = self.path(ours), self.host.weights, self.anatomy.cfg
        view = self.view(parent, name, path, f"{ours}.")
        inside = ".attn." in ours
        rows = "" if inside else self.rows
        self.slot(view, "hook_in", entry or Activation(path, after=False, block=rows))
        centers = (kind or str(cfg.normalization_type)).startswith("LN") and not inside
        for part in ("scale", "normalized"):
            self.slot(
                view, f"hook_{part}", NormPart(path, part, centers, cfg.eps, weights, ours, max(self.layer, 0), rows)
            )
        overwritten = self._changes(f"attn.{name}" if inside else name)
        self.slot(view, "hook_out", Activation(path, overwritten=overwritten, block=rows))
        return view

    def block(self) -> View:
        anatomy = self.anatomy
        block = View(self.host, self.block_path, layer=self.layer)
        self.slot(block, "hook_in", Activation(self.block_path, after=False))
        ln1 = anatomy.path(f"{_LAYER}ln1")
        if ln1 is not None:
            self.norm(block, "ln1", f"{_LAYER}ln1")
        self._attention(block, None if ln1 is None else ln1.format(layer=self.layer))
        written = self._attention_out(block)
        self._stream(block, written)
        self._mlp(block)
        self.slot(block, "hook_out", Activation(self.block_path))
        return block

    def _attention(self, block: View, ln1: str | None) -> None:
        anatomy, path = self.anatomy, self.anatomy.attention.format(layer=self.layer)
        attn = self.view(block, "attn", path, f"{_LAYER}attn.")
        self.slot(attn, "hook_in", Activation(path, after=False))
        columns = {x: anatomy.columns(f"{_LAYER}attn.W_{x.upper()}") for x in "qkv"}
        places = {x: self.path(f"{_LAYER}attn.W_{x.upper()}") for x in "qkv"}
        inputs = [HeadInputs(places[x], columns[x], ln1, ln1 or path) for x in "qkv"]
        self.slot(attn, "hook_attn_in", SharedHeadInput(tuple(inputs)))
        for x, site in zip("qkv", inputs, strict=True):
            self.slot(attn, f"hook_{x}_input", site)
        for x in "qkv":
            view = self.view(attn, x, places[x])
            if len(set(places.values())) == len(places):
                self.slot(view, "hook_in", Activation(places[x], after=False))
            self.slot(
                view, "hook_out", Activation(places[x], columns=columns[x], overwritten=self._changes(f"attn.{x}"))
            )
        for x in "qk":
            if anatomy.path(f"{_LAYER}attn.{x}_norm") is not None:
                self.norm(attn, f"{x}_norm", f"{_LAYER}attn.{x}_norm")
        parts: list[Inner] = ["attn_scores", "pattern"]
        if anatomy.cfg.positional_embedding_type == "rotary":
            parts = ["rot_q", "rot_k", *parts]
        cfg = anatomy.cfg
        for part in parts:
            key_heads = cfg.n_key_value_heads or cfg.n_heads
            inner = AttentionPart(path, part, cfg.n_heads, key_heads, cfg.use_attention_sinks)
            self.slot(attn, f"hook_{part}", inner)
        self._heads_out(attn, anatomy.columns(f"{_LAYER}attn.W_O"))

    def _heads_out(self, attn: View, columns: Columns) -> None:
        path, times = self.path(f"{_LAYER}attn.W_O"), self.anatomy.multiplier("attn")
        out = self.view(attn, "o", path)
        self.slot(out, "hook_in", Activation(path, after=False, columns=columns))
        self.slot(attn, "hook_result", Result(path, columns, self.host.weights, self.layer, times))
        self.slot(out, "hook_out", Activation(path))

    def _attention_out(self, block: View) -> Stream:
        """Where attention's output is added to the stream."""
        path = self.path(f"{_LAYER}attn.W_O")
        if not self.anatomy.spec.residual_inside:
            path = self.anatomy.attention.format(layer=self.layer)
        times = self.anatomy.multiplier("attn")
        self.slot(block.attn, "hook_out", Activation(path, times=times))
        if self.anatomy.path(f"{_LAYER}ln1_post") is not None:
            self.norm(block, "ln1_post", f"{_LAYER}ln1_post")
            path = self.path(f"{_LAYER}ln1_post")
        return Stream(path, self.block_path, times)

    def _stream(self, block: View, written: Stream) -> None:
        anatomy, cfg = self.anatomy, self.anatomy.cfg
        ln2 = anatomy.own_path(f"{_LAYER}ln2")
        if ln2 is None and cfg.parallel_attn_mlp:
            if anatomy.path(f"{_LAYER}ln2") is not None:
                block.__dict__["ln2"] = block.ln1  # one norm for both: it is ln1, and its weights read as ln2's too
            return
        if ln2 is None:
            view = self.view(block, "ln2", None)
            self.slot(view, "hook_in", written)
            if anatomy.mlp is not None:
                site = Activation(anatomy.mlp.format(layer=self.layer), after=False)
                self.slot(block, "hook_mlp_in", site)
            return
        # The stream is seen where it is made, before ln2; the branch alone at ln2's input.
        path = ln2.format(layer=self.layer)
        branch = Activation(path, after=False, block=self.rows)
        self.norm(block, "ln2", f"{_LAYER}ln2", entry=branch if cfg.parallel_attn_mlp else written)
        self.slot(block, "hook_mlp_in", replace(branch))

    def _mlp(self, block: View) -> None:
        anatomy = self.anatomy
        path = None if anatomy.mlp is None else anatomy.mlp.format(layer=self.layer)
        mlp = self.view(block, "mlp", path, f"{_LAYER}mlp.")
        times = anatomy.multiplier("mlp")
        if anatomy.routed:
            assert path is not None
            self.slot(mlp, "hook_in", Activation(path, after=False))
            self._router(mlp)
            out_path = path
        else:
            out_path = self._projections(mlp, path)
        self.slot(mlp, "hook_out", Activation(out_path, times=times, overwritten=self._changes("mlp"), block=self.rows))
        if anatomy.path(f"{_LAYER}ln2_post") is not None:
            self.norm(block, "ln2_post", f"{_LAYER}ln2_post")

    def _router(self, mlp: View) -> None:
        path = self.path(f"{_LAYER}mlp.W_gate.weight")
        gate = self.view(mlp, "gate", path)
        self.slot(gate, "hook_in", Activation(path, after=False))
        self.slot(gate, "hook_out", RouterPart(path, "logits"))
        if not self.anatomy.cfg.softmax_over_chosen_experts:
            self.slot(mlp, "hook_expert_weights", RouterPart(path, "probabilities"))

        self._shared_expert(mlp)

    def _shared_expert(self, mlp: View) -> None:
        prefix = f"{_LAYER}mlp.shared."
        if f"{prefix}W_out.weight" not in self.anatomy.rules:
            return
        gate, up, down = (self.path(f"{prefix}{name}.weight") for name in ("W_gate", "W_in", "W_out"))
        shared = self.view(mlp, "shared", gate.rpartition(".")[0], prefix)
        self.slot(shared, "hook_gate", Activation(gate))
        self.slot(shared, "hook_pre", Activation(up))
        self.slot(shared, "hook_post", Activation(down, after=False))

    def _projections(self, mlp: View, path: str | None) -> str:
        """The layers of a plain or gated MLP; where its output is."""
        anatomy, rows = self.anatomy, self.rows
        parts = {name: f"{_LAYER}mlp.{W}" for name, W in _MLP_PARTS.items() if f"{_LAYER}mlp.{W}" in anatomy.rules}
        places = {name: self.path(ours) for name, ours in parts.items()}
        first = path or places["in"]
        self.slot(mlp, "hook_in", Activation(first, after=False, block=rows))
        fused = len(set(places.values())) < len(places)
        for name in ("gate", "in"):
            if name in places:
                view = self.view(mlp, name, places[name])
                if not fused:
                    self.slot(view, "hook_in", Activation(places[name], after=False, block=rows))
                columns = anatomy.columns(parts[name]) if fused else None
                self.slot(view, "hook_out", Activation(places[name], columns=columns, block=rows))
        out = self.view(mlp, "out", places["out"])
        self.slot(out, "hook_in", Activation(places["out"], after=False, block=rows))
        self.slot(out, "hook_out", Activation(places["out"], overwritten=self._changes("mlp.out"), block=rows))
        return places["out"] if path is None or anatomy.spec.residual_inside else path
