"""Recorded names that are not here, or take other arguments, by reason. The list may only get shorter.

A whole module stands for all its names, and `Class:` before names for its members. `test_signatures` fails when an
entry has become available: take it out then.
"""

_NAMES = {
    "A bridge is made from what boot found: no adapters, templates of components or drivers of other engines.": """
        model_bridge.bridge_core.BridgeCore: __init__ add_hook add_perma_hook close forward to_tokens
        model_bridge.component_setup: refresh_container_state_owners set_original_components setup_blocks_bridge
            setup_components setup_submodules
        model_bridge.remote_bridge model_bridge.transformer_bridge.TransformerBridge.__init__
    """,
    "Models that hear, see or diffuse bring samplers and processors of their own; bridge.original_model has them.": """
        model_bridge.transformer_bridge.TransformerBridge: diffusion_generate encoder_output prepare_multimodal_inputs
    """,
    "lit-nlp: what installs beside torch and NumPy 2 is 1.2 (198 folders, 934 MB), and its server needs NumPy 1.": """
        lit lit.constants lit.dataset lit.model lit.utils
    """,
}


def _names(text: str) -> set[str]:
    """Each name in full; what ends in a colon stands before the rest of its line, and of deeper lines below it."""
    names, parent = set(), ""
    for line in text.splitlines():
        if not line.startswith(" " * 12):
            parent = ""
        for word in line.split():
            if word.endswith(":"):
                parent = f"{word[:-1]}."
            else:
                names.add(parent + word)
    return names


NOT_HERE: set[str] = {name for text in _NAMES.values() for name in _names(text)}
