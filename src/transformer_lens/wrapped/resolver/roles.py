"""What the names of modules say where values cannot: which projection is which."""

from __future__ import annotations

import re

QUERY = re.compile(r"q|q_proj|query|q_lin|wq|q_linear|linear_q|query_proj|project_q|q_attn|query_projection", re.I)
KEY = re.compile(r"k|k_proj|key|k_lin|wk|k_linear|linear_k|key_proj|project_k|key_projection", re.I)
VALUE = re.compile(r"v|v_proj|value|v_lin|wv|v_linear|linear_v|value_proj|project_v|value_projection", re.I)
FUSED = re.compile(r"qkv|qkv_proj|query_key_value|c_attn|wqkv|in_proj|att_proj|w_pack|qkv_projection|to_qkv", re.I)
OUTPUT = re.compile(r"o|o_proj|out_proj|dense|c_proj|out_lin|wo|proj|o_linear|linear_out|attention_out|attn_out", re.I)
CROSS = re.compile(r"cross|encoder_attn|encdec|enc_dec|encoder_decoder", re.I)
MLP = re.compile(r"mlp|ffn|ff|feed_?forward|^fc|moe|expert|intermediate|channel_mix|^output$|dense|^lin\d", re.I)
MIXER = re.compile(
    r"mamba|ssm|s6|conv|delta|recurrent|lstm|rwkv|retention|time_?mix|mixer|linear_?attn|lightning|gla", re.I
)
ROUTER = re.compile(r"gate|router|gating|wg|classifier|switch|mlp_router", re.I)
EXPERTS = re.compile(r"experts?$", re.I)
SHARED = re.compile(r"shared_(expert|mlp)s?|shared", re.I)
GATE = re.compile(r"gate|gate_proj|w1|wi_0|gate_linear|linear_1|gate_fc|wg|ff_gate|proj_gate", re.I)
UP = re.compile(r"up|up_proj|w3|wi_1|linear_v|up_linear|ff_up|proj_up", re.I)
ROTARY = re.compile(r"rotary|rope", re.I)
POSITIONS = re.compile(r"pos|wpe", re.I)
LOGIT_CAP = re.compile(r"((final|output)_)?logits?_soft_?cap(ping)?")
SPECIAL_IDS = re.compile(r".*(_token_id|_token_index|_token_ids|_id)|.*_start_token|.*_end_token")
# Names that people know a module by -> what the module is called here.
KNOWN_AS = {"norm": "inner_norm"}


def free_name(wanted: str, taken: set[str]) -> str:
    """A name for a view that no other one has.

    Example:
        >>> free_name("norm", {"norm"})
        'norm_1'
    """
    name, number = wanted, 0
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    taken.add(name)
    return name
