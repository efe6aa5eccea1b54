"""Small random checkpoints of every architecture and rotary scaling, with what transformers computes for them.

    python -m venv v && v/bin/pip install torch==2.9.1 transformers==5.24.0 gguf==0.19.0
    v/bin/python backends/cpu/tests/golden/make.py

Writes, beside this file, a folder NAME for each model: config.json and the sentence-transformers files, model.safetensors (BF16:
both precisions read the same weights), golden.safetensors with `tokens`, and `fp32` and `bf16` logits of every position, or
`embedding` of an encoder. No text is involved. The same versions and seeds give the same files.
"""

import json
import pathlib
import shutil

import torch
import transformers
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
TOKENS = 40

BASE = dict(
    vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16, max_position_embeddings=128, rms_norm_eps=1e-5, hidden_act="silu",
    tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=0, attention_dropout=0.0,
)


def rope(kind, **more):
    return {"rope_type": kind, "rope_theta": 10000.0, **more}


DECODERS = {
    "llama": ("Llama", dict(rope_parameters=rope("default"), tie_word_embeddings=True)),
    "llama-bias": ("Llama", dict(rope_parameters=rope("default"), attention_bias=True)),
    "llama-linear": ("Llama", dict(rope_parameters=rope("linear", factor=4.0))),
    "llama-dynamic": ("Llama", dict(rope_parameters=rope("dynamic", factor=2.0), max_position_embeddings=24)),
    "llama-yarn": ("Llama", dict(rope_parameters=rope("yarn", factor=4.0, original_max_position_embeddings=32))),
    "llama-llama3": ("Llama", dict(rope_parameters=rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32))),
    "mistral": ("Mistral", dict(rope_parameters=rope("default"), sliding_window=9)),
    "qwen2": ("Qwen2", dict(rope_parameters=rope("default"), use_sliding_window=True, sliding_window=7, max_window_layers=1)),
    "qwen3": ("Qwen3", dict(rope_parameters=rope("default"), rms_norm_eps=1e-6)),
}


def fill(model, seed):
    """Random weights, such that logits are far from flat while BF16 still carries them; norms near one; rounded to BF16."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            x = torch.randn(p.shape, generator=generator)
            if "norm" in name.lower() and name.endswith("weight"):
                x = 1 + 0.2 * x
            elif p.dim() == 1:
                x = 0.3 * x
            elif "embed" in name:
                x = x * (0.22 if model.config.tie_word_embeddings else 1.0)
            else:
                gain = 3.0 if "lm_head" in name else 1.0 if "q_proj" in name or "k_proj" in name else 0.6
                x = x * (gain / p.shape[1] ** 0.5)
            p.copy_(x.to(torch.bfloat16).to(p.dtype))


def write(folder, model, files, golden):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, value in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
    tied = model.config.tie_word_embeddings
    weights = {k: v.to(torch.bfloat16).contiguous() for k, v in model.state_dict().items()
               if not (k == "lm_head.weight" and tied) and "position_ids" not in k}
    save_file(weights, folder / "model.safetensors")
    save_file({k: v.contiguous() for k, v in golden.items()}, folder / "golden.safetensors")


def one_by_one(model, tokens):
    """Logits of tokens that come one at a time: under dynamic scaling a whole prompt would turn its early keys by its length."""
    past, rows = None, []
    for i in range(tokens.shape[1]):
        out = model(tokens[:, i : i + 1], past_key_values=past, use_cache=True)
        past = out.past_key_values
        rows.append(out.logits[0, 0])
    return torch.stack(rows)


def decoder(seed, name, family, changes):
    config = getattr(transformers, family + "Config")(**{**BASE, **changes}, attn_implementation="eager")
    model = getattr(transformers, family + "ForCausalLM")(config).eval().to(torch.float32)
    fill(model, seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    tokens = torch.randint(3, config.vocab_size, (1, TOKENS), generator=generator)
    whole = lambda m: one_by_one(m, tokens) if "dynamic" in name else m(tokens, use_cache=False).logits[0]
    with torch.no_grad():
        fp32 = whole(model)
        bf16 = whole(model.to(torch.bfloat16)).to(torch.float32)
    files = {"config.json": {**config.to_dict(), "architectures": [family + "ForCausalLM"]}}
    files["config.json"].pop("transformers_version", None)
    write(HERE / name, model, files, {"tokens": tokens[0].to(torch.int32), "fp32": fp32, "bf16": bf16})
    p = fp32.softmax(-1)
    print(f"{name}: entropy {-(p * p.log()).sum(-1).mean():.2f}, max {fp32.abs().max():.1f}, bf16 off by {((bf16 - fp32).abs().amax(-1) / fp32.abs().amax(-1)).max():.1e}")


def encoder(seed, name, mode, normalize):
    config = transformers.BertConfig(
        vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=48, type_vocab_size=2, hidden_act="gelu", attn_implementation="eager")
    model = transformers.BertModel(config, add_pooling_layer=False).eval().to(torch.float32)
    fill(model, seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    tokens = torch.randint(3, config.vocab_size, (1, 17), generator=generator)
    with torch.no_grad():
        h = model(tokens).last_hidden_state[0]
    n = h.shape[0]
    weights = torch.arange(1, n + 1, dtype=torch.float32)[:, None]
    vector = {
        "cls_token": h[0], "mean_tokens": h.mean(0), "max_tokens": h.amax(0), "mean_sqrt_len_tokens": h.sum(0) / n ** 0.5,
        "weightedmean_tokens": (h * weights).sum(0) / weights.sum(), "lasttoken": h[-1],
    }[mode]
    if normalize:
        vector = vector / vector.norm()
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")] + ([("Normalize", "2_Normalize")] if normalize else [])
    config = {**config.to_dict(), "architectures": ["BertModel"]}
    config.pop("transformers_version", None)
    files = {
        "config.json": config,
        "modules.json": [{"idx": i, "name": str(i), "path": path, "type": "sentence_transformers.models." + kind} for i, (kind, path) in enumerate(modules)],
        "1_Pooling/config.json": {"word_embedding_dimension": 64, "pooling_mode_" + mode: True},
        "sentence_bert_config.json": {"max_seq_length": 32, "do_lower_case": False},
    }
    write(HERE / name, model, files, {"tokens": tokens[0].to(torch.int32), "embedding": vector})
    print(f"{name}: {vector[:3].tolist()}")


if __name__ == "__main__":
    for seed, (name, (family, changes)) in enumerate(DECODERS.items()):
        decoder(seed, name, family, changes)
    encoder(50, "bert-mean", "mean_tokens", True)
    encoder(51, "bert-cls", "cls_token", False)
    encoder(52, "bert-max", "max_tokens", True)
    encoder(53, "bert-sqrt", "mean_sqrt_len_tokens", False)
    encoder(54, "bert-weighted", "weightedmean_tokens", False)
    encoder(55, "bert-last", "lasttoken", True)
