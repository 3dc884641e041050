"""HookedAudioEncoder: HuBERT or wav2vec 2.0 with its sound, its cache and its ways of running."""

from __future__ import annotations

import os
from copy import copy
from typing import Any, Self, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transformer_lens import models
from transformer_lens.config import HookedTransformerConfig
from transformer_lens.errors import TransformerLensError
from transformer_lens.models.caching import Caching
from transformer_lens.models.moving import Moving
from transformer_lens.models.origin import Origin
from transformer_lens.models.request import Request
from transformer_lens.native.audio_encoder import NativeAudioEncoder

Frames: TypeAlias = Float[Tensor, "batch pos d_model"]
Mask: TypeAlias = Int[Tensor, "rows frames"]


class HookedAudioEncoder(Moving, Caching, NativeAudioEncoder):
    """HuBERT (arXiv 2106.07447) or wav2vec 2.0 (arXiv 2006.11477): transformers' convolutions, and hooked layers.

    Args:
        cfg: a HookedTransformerConfig, or a dict of its fields; the model keeps a copy of its own.
        move_to_device: put it on cfg.device.
        model_name: what to load where the parts before the layers are missing; messages say it.
        hubert_model: transformers' HubertModel or Wav2Vec2Model; only what stands before its layers is used.
        processor: transformers' feature extractor, which pads and normalises sound.

    Example:
        >>> import transformers
        >>> sizes = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
        >>> hf_model = transformers.HubertModel(transformers.HubertConfig(**sizes))
        >>> model = HookedAudioEncoder.from_pretrained("tiny", hf_model=hf_model, device="cpu")
        >>> output, cache = model.run_with_cache(torch.randn(1, 16000))
        >>> output.shape, cache["pattern", 1].shape
        (torch.Size([1, 49, 16]), torch.Size([1, 2, 49, 49]))
    """

    holder = "HookedAudioEncoder"
    origin: Origin | None = None
    processor: Any

    def __init__(
        self,
        cfg: HookedTransformerConfig | dict[str, Any],
        move_to_device: bool = True,
        model_name: str = "facebook/hubert-base-ls960",
        *,
        hubert_model: Any = None,
        processor: Any = None,
    ):
        super().__init__(copy(HookedTransformerConfig.unwrap(cfg)), hubert_model)
        self.model_name = model_name
        self.processor = processor
        if move_to_device:
            self.move_model_modules_to_device()

    def _front(self) -> Any:
        if self.hubert_model is None:
            raise TransformerLensError(
                "This model has no convolutions to hear with, only layers. Load it whole, with "
                f"HookedAudioEncoder.from_pretrained({self.model_name!r}), or give hubert_model and processor."
            )
        return self.hubert_model

    def to_frames(
        self, raw_inputs: Any, sampling_rate: int = 16000, move_to_device: bool = True
    ) -> tuple[Frames, Mask]:
        """What the convolutions make of sound, [batch, frames, d_model], and a mask: 1 for sound, 0 for padding.

        Args:
            raw_inputs: one sound [samples], several of one length [batch, samples], or a list of sounds (tensors or
                arrays) of any lengths, which are padded.
            sampling_rate: samples per second.
            move_to_device: put the sound where the model is.

        Raises:
            ValueError: another sampling rate than the model's, a sound of another shape, or too short a sound.
        """
        front, processor = self._front(), self.processor
        if sampling_rate != processor.sampling_rate:
            raise ValueError(
                f"This model hears {processor.sampling_rate} samples per second, and the sound has {sampling_rate}: "
                "resample it first (torchaudio.functional.resample, say)."
            )
        sounds = [torch.as_tensor(sound).detach().float().cpu() for sound in _each(raw_inputs)]
        _check(sounds, front)
        made = processor(
            [sound.numpy() for sound in sounds],
            sampling_rate=sampling_rate,
            padding=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        weight = front.feature_projection.projection.weight
        values = made["input_values"].to(weight.dtype)
        features = front.feature_extractor(values.to(weight.device) if move_to_device else values).transpose(1, 2)
        projected = front.feature_projection(features)
        # NOTE: wav2vec 2.0's gives what it projected too.
        frames = projected[0] if isinstance(projected, tuple) else projected
        lengths = front._get_feat_extract_output_lengths(made["attention_mask"].sum(-1))
        mask = (torch.arange(frames.shape[1])[None] < lengths[:, None]).long()
        return frames, mask.to(frames.device)

    def encoder_output(self, frames: Frames, one_zero_attention_mask: Mask | None = None) -> Frames:
        """The normalised stream after the last layer, for frames as `to_frames` makes them.

        Args:
            frames: [batch, frames, d_model].
            one_zero_attention_mask: 1 for sound, 0 for padding, which is silenced and not attended to.

        Raises:
            ValueError: a mask of another shape.
        """
        self._front()
        mask = one_zero_attention_mask
        if mask is not None and mask.shape != frames.shape[:2]:
            raise ValueError(
                f"one_zero_attention_mask has shape {tuple(mask.shape)}, and the frames {tuple(frames.shape[:2])}."
            )
        return self.encode(frames, None if mask is None else mask.to(frames.device))

    def forward(
        self,
        inputs: Any,
        one_zero_attention_mask: Mask | None = None,
        sampling_rate: int = 16000,
        move_to_device: bool = True,
    ) -> Frames:
        """The normalised stream after the last layer, [batch, frames, d_model]: transformers' last_hidden_state.

        Args:
            inputs: sound (see `to_frames`), frames [batch, frames, d_model], or frames and their mask.
            one_zero_attention_mask: of the frames: 1 for sound, 0 for padding; None: as `to_frames` finds it.
            sampling_rate: of sound, in samples per second.
            move_to_device: put the input where the model is.
        """
        if isinstance(inputs, tuple):
            frames, own = inputs
        elif isinstance(inputs, Tensor) and inputs.ndim == 3:
            frames, own = inputs, None
        else:
            frames, own = self.to_frames(inputs, sampling_rate, move_to_device)
        if move_to_device:
            frames = frames.to(next(self.parameters()).device)
        return self.encoder_output(frames, own if one_zero_attention_mask is None else one_zero_attention_mask)

    @classmethod
    def from_pretrained(
        cls,
        model_name: str | os.PathLike[str],
        checkpoint_index: int | None = None,
        checkpoint_value: int | None = None,
        hf_model: Any = None,
        device: str | torch.device | None = None,
        move_to_device: bool = True,
        dtype: torch.dtype | str = torch.float32,
        *,
        processor: Any = None,
        **from_pretrained_kwargs: Any,
    ) -> Self:
        """The model of this name, with its weights as they were trained.

        Args:
            model_name: an official name or alias, a name on the hub, or a folder.
            checkpoint_index, checkpoint_value: as for `HookedTransformer.from_pretrained`.
            hf_model: a HubertModel or Wav2Vec2Model in memory, or one of them with a head; memory is shared.
            device: where it goes; None: an accelerator if there is one.
            move_to_device: False leaves it on the CPU.
            dtype: of the weights.
            processor: transformers' feature extractor; None: the folder's, or one for 16000 samples per second that
                takes each sound to mean 0 and variance 1.
            from_pretrained_kwargs: as for `HookedTransformer.from_pretrained`.

        Raises:
            UnknownNameError: no model has this name.
            UnsupportedModelError: another class holds this model, or none does; says which.
            CheckpointError: a damaged or incomplete checkpoint; nothing half-loaded is returned.
        """
        arguments = {
            "hf_model": hf_model, "device": device, "dtype": dtype, "move_to_device": move_to_device,
            "checkpoint_index": checkpoint_index, "checkpoint_value": checkpoint_value,
        }  # fmt: skip
        request = Request.of(arguments, from_pretrained_kwargs)
        return models.load_audio_encoder(cls, model_name, request, processor)  # type: ignore[no-any-return]


def _each(raw_inputs: Any) -> list[Any]:
    if isinstance(raw_inputs, list):
        return raw_inputs
    sound = torch.as_tensor(raw_inputs)
    return [sound] if sound.ndim == 1 else list(sound)


def _check(sounds: list[Tensor], front: Any) -> None:
    shapes = [tuple(sound.shape) for sound in sounds]
    if not sounds or any(sound.ndim != 1 for sound in sounds):
        raise ValueError(f"Sound is [samples], [batch, samples] or a list of [samples], of one channel; got {shapes}.")
    shortest = min(len(sound) for sound in sounds)
    if int(front._get_feat_extract_output_lengths(shortest)) < 1:
        raise ValueError(f"A sound of {shortest} samples is shorter than one frame of this model.")
