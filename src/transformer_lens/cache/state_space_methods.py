"""Methods of a cache about state space layers (Mamba)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from transformer_lens.cache.errors import UndefinedDecompositionError
from transformer_lens.cache.run import Run
from transformer_lens.cache.state_space import KNOWN, Recurrence, asked_for, recurrence, state_space_mixers

ByLayer = Float[Tensor, "..."] | dict[int, Float[Tensor, "..."]]


class StateSpaceMethods(Run):
    """States of Mamba-1 and Mamba-2 layers, and what each position takes from each earlier one.

    They are computed from what the layer's projections gave in this run, `blocks.{l}.mixer.x_proj` (Mamba-1) or
    `blocks.{l}.mixer.in_proj` (Mamba-2), in float32; the run began at the first position, without padding.
    """

    def ssm_layers(self, mixer_type: type | tuple[type, ...] | None = None) -> list[int]:
        """The layers that are state spaces whose recurrence is known.

        Args:
            mixer_type: only those whose module in HuggingFace's model is of this class, or of one of these.

        Example:
            >>> import torch
            >>> from transformer_lens import HookedTransformer
            >>> model = HookedTransformer({"n_layers": 1, "d_model": 8, "d_head": 4, "n_ctx": 16, "d_vocab": 20})
            >>> model.run_with_cache(torch.tensor([[1, 2, 3]]))[1].ssm_layers()
            []
        """
        mixers = state_space_mixers(self.model)
        return [layer for layer, mixer in mixers.items() if mixer_type is None or isinstance(mixer, mixer_type)]

    @torch.no_grad()
    def compute_ssm_effective_attention(
        self, layer: int | None = None, include_dt_scaling: bool = False, per_state_coord: bool = False
    ) -> ByLayer:
        """What each query reads of what each key wrote, [batch, head, query, key]; for Mamba-1 channels are heads.

        With include_dt_scaling, this times the inputs (plus D times them, past the state) is what the layer gives
        before its gate. Source: Dao and Gu 2024, arXiv 2405.21060; Ali et al. 2024, arXiv 2403.01590.

        Args:
            layer: which; None: all, as a dict.
            include_dt_scaling: count each key's step size, by which what it writes is multiplied.
            per_state_coord: keep the coordinates of the state apart, [batch, head, state, query, key].

        Raises:
            UndefinedDecompositionError: no such layer, or none in this model.
            UnknownNameError: what is needed was not cached.

        Example:
            >>> import torch
            >>> from transformers import MambaConfig, MambaForCausalLM
            >>> from transformer_lens import TransformerBridge
            >>> hf_model = MambaForCausalLM(MambaConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1))
            >>> bridge = TransformerBridge.boot_transformers(hf_model=hf_model)
            >>> _, cache = bridge.run_with_cache(torch.tensor([[1, 2, 3]]))
            >>> cache.compute_ssm_effective_attention(0).shape
            torch.Size([1, 16, 3, 3])
        """
        return self._of_layers(
            layer, lambda found: found.attention(dt_scaling=include_dt_scaling, per_state_coord=per_state_coord)
        )

    @torch.no_grad()
    def compute_ssm_state(self, layer: int | None = None, time_step: int | None = None) -> ByLayer:
        """The state after each position: [batch, pos, channel, state] (Mamba-1), [batch, pos, head, d_head, state].

        Args:
            layer: which; None: all, as a dict.
            time_step: the position; None: all of them. One position drops the axis.

        Raises:
            UndefinedDecompositionError: no such layer, or none in this model.
            UnknownNameError: what is needed was not cached.
            ValueError: there is no such position.

        Example:
            >>> import torch
            >>> from transformers import MambaConfig, MambaForCausalLM
            >>> from transformer_lens import TransformerBridge
            >>> cfg = MambaConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, state_size=4)
            >>> bridge = TransformerBridge.boot_transformers(hf_model=MambaForCausalLM(cfg))
            >>> _, cache = bridge.run_with_cache(torch.tensor([[1, 2, 3]]))
            >>> cache.compute_ssm_state(0, time_step=-1).shape
            torch.Size([1, 16, 4])
        """

        def states(found: Recurrence) -> Tensor:
            length = found.x.shape[1]
            if time_step is not None and not -length <= time_step < length:
                raise ValueError(f"time_step is from {-length} to {length - 1}; got {time_step}.")
            every = found.states()
            return every if time_step is None else every[:, time_step]

        return self._of_layers(layer, states)

    def _of_layers(self, layer: int | None, what: Callable[[Recurrence], Tensor]) -> ByLayer:
        mixers = state_space_mixers(self.model)

        def here(number: int, mixer: nn.Module) -> Tensor:
            value = what(recurrence(self, number, mixer))
            return value if self.has_batch_dim else value[0]

        if layer is not None:
            return here(layer % self.n_layers, asked_for(mixers, layer, self.n_layers))
        if not mixers:
            raise UndefinedDecompositionError(
                f"No layer of this model is a state space whose recurrence is known here ({', '.join(sorted(KNOWN))})."
            )
        return {number: here(number, mixer) for number, mixer in mixers.items()}
