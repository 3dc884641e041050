"""Patching: put activations of one run into another, many at a time, and see what changes."""

from transformer_lens.patching.interventions import Cell, Intervention
from transformer_lens.patching.metrics import LogitDifference, Metric
from transformer_lens.patching.residual import patch_residual
from transformer_lens.patching.sweep import Plan, plan, sweep

__all__ = ["Cell", "Intervention", "LogitDifference", "Metric", "Plan", "patch_residual", "plan", "sweep"]
