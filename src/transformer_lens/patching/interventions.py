"""What is changed in a run; it lives beside the hook points, because models speak it too (`model.edit`)."""

from transformer_lens.hooks.interventions import Cell, Intervention, OwnHook, Value, interventions_of, parts_of

__all__ = ["Cell", "Intervention", "OwnHook", "Value", "interventions_of", "parts_of"]
