"""Records what TransformerLens 4.3.0's Jacobian lens says of tiny random models: python record.py, in its environment.

Writes weights, inputs and outputs beside itself. Only public functions are called.
"""

import json
from dataclasses import fields, is_dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools.analysis.jacobian_lens import JacobianLens
from transformer_lens.tools.analysis.jacobian_lens_coordinate_patch import (
    solve_coordinate_patch,
    solve_coordinate_patch_positions,
)
from transformer_lens.tools.analysis.jacobian_lens_decomposition import estimate_occupancy, get_sparse_decomposition
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, LlamaConfig

HERE = Path(__file__).parent
CONFIGS = {
    "gpt2": GPT2Config(
        vocab_size=97, n_embd=16, n_layer=4, n_head=4, n_positions=40, n_inner=24, initializer_range=0.3,
        bos_token_id=1, eos_token_id=2,
    ),
    "llama": LlamaConfig(
        vocab_size=97, hidden_size=16, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=24, max_position_embeddings=40, initializer_range=0.4, bos_token_id=1, eos_token_id=2,
        pad_token_id=0, tie_word_embeddings=False,
    ),
}  # fmt: skip
NAMES = {"gpt2": "gpt2", "llama": "meta-llama/Llama-2-7b-hf"}


def words(count, seed):
    drawn = torch.randint(4, 97, (count,), generator=torch.Generator().manual_seed(seed))
    return " ".join(f"w{word}" for word in drawn.tolist())


PROMPTS = [words(24, 0), words(30, 1), words(19, 2)]
PROMPT, OTHER = words(8, 3), words(8, 4)


def flat(value, name=""):
    """Everything in a result, by a name with dots: tensors, and the rest as JSON can hold it."""
    if is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, dict):
        found = {}
        for key, entry in value.items():
            found |= flat(entry, f"{name}.{key}" if name else str(key))
        return found
    return {name: value.detach().clone().contiguous() if isinstance(value, torch.Tensor) else value}


def write(name, found):
    found = flat(found)
    tensors = {key: value for key, value in found.items() if isinstance(value, torch.Tensor)}
    save_file(tensors, HERE / f"{name}.safetensors")
    rest = {key: value for key, value in found.items() if key not in tensors}
    (HERE / f"{name}.json").write_text(json.dumps(rest, indent=1) + "\n")


def bridge(family):
    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(CONFIGS[family], attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in hf.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn_like(parameter)
    hf.save_pretrained(HERE / family)
    tokenizer = AutoTokenizer.from_pretrained(HERE)
    return TransformerBridge.boot_transformers(NAMES[family], hf_model=hf, tokenizer=tokenizer, device="cpu")


def family(name):
    model = bridge(name)
    lens = JacobianLens.fit(model, PROMPTS, corpus="words", skip_first_positions=4, show_progress=False)
    cut = JacobianLens.fit(
        model, PROMPTS, corpus="words", skip_first_positions=2, max_seq_len=12, source_layers=[-2], show_progress=False
    )
    lens.save(HERE / f"{name}.lens.pt", dtype=torch.float32)
    tokens = model.to_tokens([PROMPT, OTHER])
    _, clean = model.run_with_cache(tokens)
    _, other = model.run_with_cache(tokens.flip(0))
    stream = clean["blocks.1.hook_out"][0, 5].detach()
    decomposed = lens.decompose(model, PROMPT, 1, position=5, k=6)
    source, target = decomposed.support[1].item(), 10
    read = lens.readout(model, PROMPT, positions=[-1, 2], top_k=5, return_full_logits=True)
    found = {
        "lens": lens.jacobians,
        "metadata": {"keys": sorted(lens.metadata)},
        "cut": cut.jacobians,
        "transport": lens.transport(stream, 1),
        "readout": read,
        "logit_lens": lens.readout(model, PROMPT, layers=[0], use_jacobian=False, top_k=5),
        "lens_vectors": lens.lens_vectors(model, ["w9", 10], -2),
        "dictionary": lens.lens_vector_dictionary(model, 1),
        "stream": stream,
        "decomposed": decomposed,
        "pursued": lens.decompose(model, stream, 1, k=6, algorithm="gradient_pursuit"),
        "source": source,
        "patched": lens.coordinate_patch(model, PROMPT, 1, source, target, position=5, k=6),
        "occupancy": lens.occupancy(model, PROMPT, 1, position=5, max_atoms=8, num_control_dictionaries=4, seed=3),
        "variance": lens.fraction_of_variance(model, PROMPTS[:2], k=5),
        "variance_at": lens.fraction_of_variance(model, model.to_tokens(PROMPT), layers=[-2], k=3, positions=[-1, 3]),
        "top_tokens": read.top_tokens(model.tokenizer, k=2),
    }
    hooks = {
        "none": [],
        "steered": lens.steering_hooks(model, "w9", [0, 1], alpha=1.5),
        "steered_at": lens.steering_hooks(model, 9, [1], alpha=1.5, positions=[2, -1]),
        "ablated": lens.ablation_hooks(model, ["w9", "w10", "w9"], [0, -2]),
        "ablated_at": lens.ablation_hooks(model, 9, [1], positions=[4]),
        "swapped": lens.swap_hooks(model, "w9", "w10", [0, 1], alpha=2.0),
        "clamped": lens.swap_hooks(model, "w9", "w10", [0, 1], alpha=0.5, positions=[-1, 3], clamp_to=other),
    }
    with torch.no_grad():
        found["logits"] = {kind: model.run_with_hooks(tokens, fwd_hooks=given) for kind, given in hooks.items()}
        given = lens.coordinate_patch_hooks(model, source, target, [1], positions=[5], k=6, mode="swap")
        found["logits"]["coordinates"] = model.run_with_hooks(tokens[:1], fwd_hooks=given)
    write(name, found)


def dictionaries():
    """Vectors and dictionaries of their own: sparse sums, dependent atoms, both algorithms."""
    found = {}
    for seed, (atoms, width, k) in enumerate([(30, 10, 6), (12, 12, 12), (60, 8, 25), (60, 16, 20), (97, 6, 4)]):
        generator = torch.Generator().manual_seed(seed)
        scale = torch.rand(atoms, 1, generator=generator) * 2 + 0.2
        dictionary = torch.randn(atoms, width, generator=generator) * scale + seed * 0.3
        x = torch.randn(width, generator=generator) * 3
        case = {"x": x, "dictionary": dictionary, "k": k}
        for algorithm in ("nonnegative_orthogonal_matching_pursuit", "gradient_pursuit"):
            case[algorithm] = get_sparse_decomposition(x, dictionary, k, algorithm=algorithm)
        case["occupancy"] = estimate_occupancy(
            x, dictionary, max_atoms=width - 2, num_control_dictionaries=6, seed=seed
        )
        found[str(seed)] = case
    x, dictionary = found["0"]["x"], found["0"]["dictionary"]
    chosen = found["0"]["nonnegative_orthogonal_matching_pursuit"].support.tolist()
    absent = next(atom for atom in range(len(dictionary)) if atom not in chosen)
    patches = {}
    for mode in ("substitute", "swap"):
        for alpha in (0, 0.5, 1.0, 2.0):
            for kind, target in (("present", chosen[3]), ("absent", absent)):
                patch = solve_coordinate_patch(x, dictionary, chosen[1], target, k=6, mode=mode, alpha=alpha)
                patches[f"{mode} {alpha} {kind}"] = {"result": patch, "target": target}
    rows = torch.stack([x, x * 1.1 + 0.1])[None].repeat(2, 1, 1)
    patched, _ = solve_coordinate_patch_positions(rows, dictionary, [7, 3], chosen[1], absent, layer=4, k=6)
    write("dictionaries", found | {"source": chosen[1], "patches": patches, "rows": rows, "patched_rows": patched})


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in CONFIGS:
        family(name)
    dictionaries()
