"""Patching: put activations of one run into another, many at a time, and see what changes."""

from transformer_lens.patching.ablation import Ablation, ablate, knock_out, part_labels
from transformer_lens.patching.activation_patching import (
    activation_patch,
    generic_activation_patch,
    get_act_patch_attn_head_all_pos_every,
    get_act_patch_attn_head_by_pos_every,
    get_act_patch_attn_head_k_all_pos,
    get_act_patch_attn_head_k_by_pos,
    get_act_patch_attn_head_out_all_pos,
    get_act_patch_attn_head_out_by_pos,
    get_act_patch_attn_head_pattern_all_pos,
    get_act_patch_attn_head_pattern_by_pos,
    get_act_patch_attn_head_pattern_dest_src_pos,
    get_act_patch_attn_head_q_all_pos,
    get_act_patch_attn_head_q_by_pos,
    get_act_patch_attn_head_v_all_pos,
    get_act_patch_attn_head_v_by_pos,
    get_act_patch_attn_out,
    get_act_patch_block_every,
    get_act_patch_mlp_out,
    get_act_patch_resid_mid,
    get_act_patch_resid_post,
    get_act_patch_resid_pre,
)
from transformer_lens.patching.attribution_patching import attribution_patch
from transformer_lens.patching.direct_paths import (
    get_act_patch_direct_path,
    get_act_patch_direct_path_all_sources,
)
from transformer_lens.patching.edge_attribution import edge_attribution
from transformer_lens.patching.edges import run_with_edges, written
from transformer_lens.patching.gradients import gradients
from transformer_lens.patching.integrated_gradients import integrated_gradients
from transformer_lens.patching.interventions import Cell, Intervention
from transformer_lens.patching.metrics import KLDivergence, LogitDifference, Loss, Metric, Probability, Rank, Reading
from transformer_lens.patching.nodes import At, Nodes, Receiver, Sender, UndefinedPathError
from transformer_lens.patching.path_patching import path_patch
from transformer_lens.patching.planner import Plan
from transformer_lens.patching.results import PatchingResult, make_df_from_ranges
from transformer_lens.patching.setters import (
    layer_head_dest_src_pos_pattern_patch_setter,
    layer_head_pattern_patch_setter,
    layer_head_pos_pattern_patch_setter,
    layer_head_vector_patch_setter,
    layer_pos_head_vector_patch_setter,
    layer_pos_patch_setter,
)
from transformer_lens.patching.statistics import Summary, summary
from transformer_lens.patching.sweep import SlowSweepWarning, Sweep, plan, sweep
from transformer_lens.patching.values import MeanOf, Named, Resampled, Transformed, reference_means

__all__ = [
    "Ablation",
    "At",
    "Cell",
    "Intervention",
    "KLDivergence",
    "LogitDifference",
    "Loss",
    "MeanOf",
    "Metric",
    "Named",
    "Nodes",
    "PatchingResult",
    "Plan",
    "Probability",
    "Rank",
    "Reading",
    "Receiver",
    "Resampled",
    "Sender",
    "SlowSweepWarning",
    "Summary",
    "Sweep",
    "Transformed",
    "UndefinedPathError",
    "ablate",
    "activation_patch",
    "attribution_patch",
    "edge_attribution",
    "generic_activation_patch",
    "get_act_patch_attn_head_all_pos_every",
    "get_act_patch_attn_head_by_pos_every",
    "get_act_patch_attn_head_k_all_pos",
    "get_act_patch_attn_head_k_by_pos",
    "get_act_patch_attn_head_out_all_pos",
    "get_act_patch_attn_head_out_by_pos",
    "get_act_patch_attn_head_pattern_all_pos",
    "get_act_patch_attn_head_pattern_by_pos",
    "get_act_patch_attn_head_pattern_dest_src_pos",
    "get_act_patch_attn_head_q_all_pos",
    "get_act_patch_attn_head_q_by_pos",
    "get_act_patch_attn_head_v_all_pos",
    "get_act_patch_attn_head_v_by_pos",
    "get_act_patch_attn_out",
    "get_act_patch_block_every",
    "get_act_patch_direct_path",
    "get_act_patch_direct_path_all_sources",
    "get_act_patch_mlp_out",
    "get_act_patch_resid_mid",
    "get_act_patch_resid_post",
    "get_act_patch_resid_pre",
    "gradients",
    "integrated_gradients",
    "knock_out",
    "layer_head_dest_src_pos_pattern_patch_setter",
    "layer_head_pattern_patch_setter",
    "layer_head_pos_pattern_patch_setter",
    "layer_head_vector_patch_setter",
    "layer_pos_head_vector_patch_setter",
    "layer_pos_patch_setter",
    "make_df_from_ranges",
    "part_labels",
    "path_patch",
    "plan",
    "reference_means",
    "run_with_edges",
    "summary",
    "sweep",
    "written",
]
