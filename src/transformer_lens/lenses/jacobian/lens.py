"""The Jacobian lens: what later layers make of a stream, to first order, in place of leaving them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from transformer_lens.lenses.jacobian import files
from transformer_lens.lenses.jacobian.decomposing import SKIP_FIRST, Decomposing
from transformer_lens.lenses.jacobian.fit import layers_to_fit, mean_jacobians, prompts_for_fit
from transformer_lens.lenses.jacobian.intervening import Intervening
from transformer_lens.lenses.jacobian.provenance import merged_metadata, said_by_fit, with_notes
from transformer_lens.lenses.jacobian.reading import TOP_K, JacobianLensReadout, Question, read_prompt
from transformer_lens.lenses.runs import token_rows


class JacobianLens(Decomposing, Intervening):
    """A matrix for each block: what its output becomes at the end, on average, to first order.

    Source: Gurnee, Sofroniew, Lindsey et al., "Verbalizable Representations Form a Global Workspace in Language
    Models", 2026. Layer l is the output of block l, and the last block's is the end itself. Given to
    `logit_lens(lens=…)` the lens reads all streams as the logit lens does.

    Attributes:
        jacobians, n_prompts, d_model, metadata, embedding: see `LensVectors`.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> prompt = "The Eiffel Tower is in"
        >>> lens = jacobian_lens(model, prompt)
        >>> read = lens.readout(model, prompt, positions=[-1], top_k=1)
        >>> model.to_string(read.lens_topk_indices[2][0]), model.to_string(read.model_topk_indices[0])
        (' Paris', ' Paris')
        >>> model.to_string(lens.decompose(model, prompt, 2, position=-1, k=2).support)
        ' Paris Eiffel'
        >>> logits = model.run_with_hooks(prompt, fwd_hooks=lens.steering_hooks(model, " Rome", [2], alpha=1.0))
        >>> model.to_string(logits[0, -1].argmax())
        ' Rome'
    """

    def __call__(self, stream: Float[Tensor, "*row d_model"], layer: int) -> Float[Tensor, "*row d_model"]:
        """What the stream that enters a layer (the output of the block before it) becomes at the end.

        The final stream stays itself. Which that is a fit records; another lens knows after `validate_model`.

        Raises:
            ValueError: the lens has no such layer, or another width.
        """
        if layer == self._end and stream.shape[-1] == self.d_model:
            return stream
        if layer and layer - 1 not in self.jacobians and self._end is None:
            raise ValueError(
                f"{self!r} has no matrix for the stream that enters layer {layer}. If that is the final stream, let it "
                "see the model first: lens.validate_model(model)."
            )
        if layer:
            return self.transport(stream, layer - 1).to(stream)
        if self.embedding is None or stream.shape[-1] != self.d_model:
            raise ValueError(
                f"This lens ({self!r}) does not read a stream of width {stream.shape[-1]} that enters layer 0: fit it "
                "with embedding=True, or read other layers."
            )
        return stream @ self.embedding.to(stream).T

    def save(self, path: str | PathLike[str], *, dtype: torch.dtype = torch.float16) -> None:
        """Write the lens as one safetensors file, whatever its name.

        Args:
            path: the file, best called *.safetensors.
            dtype: of the matrices in it; they are of order one, and half precision halves the file.

        Example:
            >>> import tempfile
            >>> lens = JacobianLens({0: torch.eye(4)}, n_prompts=3, d_model=4, metadata={"corpus": "texts"})
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     lens.save(f"{folder}/lens.safetensors")
            ...     JacobianLens.load(f"{folder}/lens.safetensors").metadata
            {'corpus': 'texts'}
        """
        stored = files.Stored(self.jacobians, self.n_prompts, self.d_model, self.metadata, self.embedding)
        files.write(path, stored, dtype)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """The lens in a file: one that `save` wrote, or a .pt of other packages.

        Of a .pt only tensors and plain containers are read, so it runs no code: a published lens (J, n_prompts,
        d_model, metadata), or a checkpoint of its fit (jacobian_sum, n_done), whose mean is taken.

        Raises:
            ValueError: it is not of a Jacobian lens, or lacks something.
            FileNotFoundError: there is no such file.
        """
        found = files.read(path)
        return cls(
            found.jacobians, n_prompts=found.n_prompts, d_model=found.d_model, metadata=found.metadata,
            embedding=found.embedding,
        )  # fmt: skip

    @classmethod
    def from_pretrained(
        cls, name_or_path: str, *, filename: str = "lens.pt", revision: str | None = None, model: Any = None
    ) -> Self:
        """The lens in a file, in a folder, or on the hub.

        A path is never looked for on the hub. A repository is read where it has `filename`. Any other name is a
        model's, whose lens is looked for in the collection "neuronpedia/jacobian-lens".

        Args:
            name_or_path: a file, a folder, a repository (owner/name), or the name of a model.
            filename: which file of a folder or repository; a folder may have it as safetensors.
            revision: of the repository.
            model: check that the lens can be of this model.

        Raises:
            FileNotFoundError: a path where there is none.
            UnknownNameError: the hub has none, or several.
            HubError, GatedModelError: as for models.
            ValueError: as `load` and `validate_model`.
        """
        lens = cls.load(files.find(name_or_path, filename, revision))
        return lens if model is None else lens.validate_model(model)

    @classmethod
    def merge(cls, lenses: Sequence[JacobianLens]) -> Self:
        """The mean of lenses that were fitted to parts of a corpus, each by its number of prompts.

        Raises:
            ValueError: there is none, or they are of different layers, widths, models or settings.

        Example:
            >>> parts = [JacobianLens({0: value * torch.eye(2)}, n_prompts=value, d_model=2) for value in (1, 3)]
            >>> JacobianLens.merge(parts).jacobians[0][0, 0].item()
            2.5
        """
        if not lenses:
            raise ValueError("There is no lens to merge.")
        kinds = {(tuple(lens.source_layers), lens.d_model, lens.embedding is None) for lens in lenses}
        if len(kinds) > 1:
            raise ValueError(f"Lenses to merge have the same layers and width; got {[repr(lens) for lens in lenses]}.")
        count = sum(lens.n_prompts for lens in lenses)
        metadata = merged_metadata([lens.metadata for lens in lenses], count)
        if count < 1:
            raise ValueError("Lenses to merge are means over prompts; these have n_prompts 0.")

        def mean(matrices: Sequence[Tensor]) -> Tensor:
            return torch.einsum("noi,n->oi", torch.stack(list(matrices)), weights)

        weights = torch.tensor([lens.n_prompts for lens in lenses]) / count
        jacobians = {layer: mean([lens.jacobians[layer] for lens in lenses]) for layer in lenses[0].source_layers}
        embeddings = [lens.embedding for lens in lenses if lens.embedding is not None]
        embedding = mean(embeddings) if embeddings else None
        return cls(jacobians, n_prompts=count, d_model=lenses[0].d_model, metadata=metadata, embedding=embedding)

    @torch.no_grad()
    def readout(
        self,
        model: Any,
        input: str | Int[Tensor, "batch seq"],
        *,
        layers: Sequence[int] | None = None,
        positions: Sequence[int] | None = None,
        use_jacobian: bool = True,
        top_k: int = TOP_K,
        return_full_logits: bool = False,
    ) -> JacobianLensReadout:
        """The likeliest tokens that blocks' outputs lead to at positions of a prompt, and the model's own.

        Args:
            model: the model, on either host.
            input: one prompt: a text, or token ids [1, seq].
            layers: blocks, negative from the end; None: those of the lens, and the last, which is read as it is.
            positions: where; None: everywhere.
            use_jacobian: False: the logit lens, of the same layers.
            top_k: how many tokens are kept.
            return_full_logits: keep all logits, too: 4 bytes times d_vocab for each layer and position.

        Raises:
            ValueError: the lens cannot be of this model or lacks a layer; more than one prompt; a number out of range.
        """
        self.validate_model(model)
        last = model.cfg.n_layers - 1
        given = [*self.source_layers, last] if layers is None else layers
        wanted = list(dict.fromkeys(layer + last + 1 if layer < 0 else layer for layer in given))
        known = {*self.source_layers, last} if use_jacobian else set(range(last + 1))
        if not wanted or not known.issuperset(wanted):
            raise ValueError(f"layers are one or more of {sorted(known)} ({last}: the end itself); got {list(given)}.")
        question = Question(wanted, positions, top_k, return_full_logits, self.transport if use_jacobian else None)
        return read_prompt(model, input, question)

    @classmethod
    def fit(
        cls,
        model: Any,
        prompts: Sequence[str | Int[Tensor, "pos"]],
        *,
        corpus: str,
        source_layers: Sequence[int] | None = None,
        dim_batch: int = 8,
        max_seq_len: int = 128,
        skip_first_positions: int = SKIP_FIRST,
        show_progress: bool = True,
        metadata: Mapping[str, Any] | None = None,
        embedding: bool | None = None,
    ) -> Self:
        """The lens of a model, averaged over prompts as in the paper.

        In each prompt count all positions but the first few and the last. The derivative of the final streams there,
        summed, by the block's output at each of them is averaged over these, then over prompts. About 100 prompts are
        said to be enough. Cost: d_model / dim_batch backward passes of dim_batch rows for each prompt.

        Args:
            model: the model, on either host; a float32 one for the truest derivatives.
            prompts: texts or rows of token ids; those without a position that counts are left out, with a warning.
            corpus: what the prompts are called, for the record.
            source_layers: the blocks, negative from the end; None: all but the last.
            dim_batch: how many dimensions of the final stream go backward at a time.
            max_seq_len: how many tokens of a prompt count.
            skip_first_positions: how many positions at the beginning do not.
            show_progress: show a progress bar.
            metadata: more for the record.
            embedding: fit the stream that enters block 0, too; None: where all layers are fitted.

        Raises:
            ValueError: there is no prompt long enough, a layer that does not exist, or a number out of range.

        Example:
            >>> from transformer_lens import HookedTransformer
            >>> model = HookedTransformer({"n_layers": 2, "d_model": 8, "d_head": 4, "n_ctx": 16, "d_vocab": 20})
            >>> rows = [torch.arange(12), torch.arange(3, 15)]
            >>> JacobianLens.fit(model, rows, corpus="counting", skip_first_positions=4, show_progress=False)
            JacobianLens(layers=[0], d_model=8, n_prompts=2)
        """
        if not corpus or dim_batch < 1:
            raise ValueError(f"corpus names the prompts, and dim_batch is at least 1; got {corpus!r} and {dim_batch}.")
        layers = layers_to_fit(model.cfg.n_layers, source_layers)
        settings = {"dim_batch": dim_batch, "max_seq_len": max_seq_len, "skip_first_positions": skip_first_positions}
        batches = prompts_for_fit(model, prompts, max_seq_len=max_seq_len, skip_first=skip_first_positions)
        said = with_notes(said_by_fit(model, corpus=corpus, n_prompts=len(batches), **settings), metadata)
        first = source_layers is None if embedding is None else embedding
        entering = [0] * first + [layer + 1 for layer in layers]
        passes = len(batches) * -(-model.cfg.d_model // dim_batch)
        with tqdm(total=passes, disable=not show_progress, desc="Jacobian lens") as bar:
            found = mean_jacobians(model, batches, entering, outputs=dim_batch, step=bar.update)
        return cls._of(found, model, said)

    @classmethod
    def _of(cls, entering: dict[int, Tensor], model: Any, metadata: dict[str, Any]) -> Self:
        """The lens with these matrices, by the layer that the stream enters."""
        jacobians = {layer - 1: matrix for layer, matrix in entering.items() if layer}
        return cls(
            jacobians, n_prompts=metadata["n_prompts"], d_model=model.cfg.d_model, metadata=metadata,
            embedding=entering.get(0),
        )  # fmt: skip


def jacobian_lens(
    model: Any,
    tokens: str | Int[Tensor, "*row pos"],
    positions: int | Int[Tensor, "row"] = -1,
    *,
    batch_size: int = 32,
    verbose: bool = False,
) -> JacobianLens:
    """The Jacobian lens of one position in each row: at a point, or averaged over rows.

    What counts is how a position's final stream changes with its own stream at each layer, the other positions' streams
    at that layer held. (`JacobianLens.fit` counts what later positions make of it, too.) Cost: d_model backward passes
    for each batch, for all layers together.

    Args:
        model: the model, on either host, with at least two layers.
        tokens: rows of one length, without padding, or a text.
        positions: the position that counts: one for all rows, or one for each.
        batch_size: rows that run at a time.
        verbose: show a progress bar.

    Raises:
        ValueError: there are no rows, or not one position for each.

    Example:
        >>> from transformer_lens import HookedTransformer
        >>> from transformer_lens.lenses import logit_lens
        >>> model = HookedTransformer.from_pretrained("demo")
        >>> lens = jacobian_lens(model, "The Eiffel Tower is in")
        >>> read = logit_lens(model, "The Eiffel Tower is in", lens=lens)
        >>> model.to_string(read.top_tokens[3:, 0, -1])
        ' Paris Paris'
    """
    rows = token_rows(model, tokens)
    where = torch.as_tensor(positions).expand(len(rows)) if isinstance(positions, int) else positions
    if not len(rows) or where.shape != rows.shape[:1]:
        raise ValueError(f"There are {len(rows)} rows of tokens; got positions of shape {tuple(where.shape)}.")
    counted = torch.zeros(rows.shape, dtype=torch.bool)
    counted[torch.arange(len(rows)), where] = True
    batches = list(zip(rows.split(batch_size), counted.split(batch_size), strict=True))
    entering = [0, *(layer + 1 for layer in layers_to_fit(model.cfg.n_layers, None))]
    with tqdm(total=len(batches) * model.cfg.d_model, disable=not verbose, desc="Jacobian lens") as bar:
        found = mean_jacobians(model, batches, entering, step=bar.update)
    return JacobianLens._of(found, model, said_by_fit(model, n_prompts=len(rows), estimator="same_position"))
