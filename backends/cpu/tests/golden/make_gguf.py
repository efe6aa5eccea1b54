"""A small quantised GGUF file and the same weights as the `gguf` package reads them; and blocks of every type with their values.

    v/bin/python backends/cpu/tests/golden/make_gguf.py      (after make.py, in its environment)

Writes gguf/model.gguf, gguf/safetensors/ (F32, dequantised by the package) and gguf/blocks.safetensors (TYPE.bytes, TYPE.values).
"""

import json
import pathlib

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Q
from safetensors.numpy import load_file, save_file
import torch
from safetensors.torch import load_file as load_torch

HERE = pathlib.Path(__file__).parent
OUT = HERE / "gguf"
NAMES = {
    "self_attn.q_proj": ("attn_q", Q.Q8_0), "self_attn.k_proj": ("attn_k", Q.Q4_1), "self_attn.v_proj": ("attn_v", Q.Q8_0),
    "self_attn.o_proj": ("attn_output", Q.Q4_0), "mlp.gate_proj": ("ffn_gate", Q.Q4_1), "mlp.up_proj": ("ffn_up", Q.Q4_1),
    "mlp.down_proj": ("ffn_down", Q.Q8_0), "input_layernorm": ("attn_norm", Q.F32), "post_attention_layernorm": ("ffn_norm", Q.F32),
}
OUTER = {"model.embed_tokens": ("token_embd", Q.Q8_0), "model.norm": ("output_norm", Q.F32), "lm_head": ("output", Q.F16)}


def interleave(w, heads):
    """Rows of q and k as `llama` files have them: element 2i and 2i + 1 are a pair."""
    return w.reshape(heads, 2, -1, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def back(w, heads):
    return w.reshape(heads, -1, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def model():
    source = HERE / "llama-linear"
    config = json.loads((source / "config.json").read_text())
    weights = {k: v.to(torch.float32).numpy() for k, v in load_torch(source / "model.safetensors").items()}
    (OUT / "safetensors").mkdir(parents=True, exist_ok=True)
    w = gguf.GGUFWriter(OUT / "model.gguf", "llama")
    w.add_context_length(config["max_position_embeddings"] * 4)
    w.add_embedding_length(config["hidden_size"])
    w.add_block_count(config["num_hidden_layers"])
    w.add_feed_forward_length(config["intermediate_size"])
    w.add_head_count(config["num_attention_heads"])
    w.add_head_count_kv(config["num_key_value_heads"])
    w.add_key_length(config["head_dim"])
    w.add_layer_norm_rms_eps(config["rms_norm_eps"])
    w.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    w.add_rope_scaling_factor(config["rope_parameters"]["factor"])
    read = {}
    for name, value in sorted(weights.items()):
        stem = name.removesuffix(".weight")
        if stem in OUTER:
            to, kind = OUTER[stem]
        else:
            _, _, layer, module = stem.split(".", 3)
            to, kind = NAMES[module]
            to = f"blk.{layer}.{to}"
        heads = {"q": config["num_attention_heads"], "k": config["num_key_value_heads"]}.get(stem.rsplit(".")[-1][:1] if "self_attn" in stem else "")
        if "o_proj" in stem or "v_proj" in stem:
            heads = None
        raw = gguf.quantize(interleave(value, heads) if heads else value, kind)
        w.add_tensor(to + ".weight", raw, raw_dtype=kind)
        plain = gguf.dequantize(raw, kind).astype(np.float32).reshape(value.shape)
        read[name] = np.ascontiguousarray(back(plain, heads) if heads else plain)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    save_file(read, OUT / "safetensors/model.safetensors")
    (OUT / "safetensors/config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")


def blocks():
    random = np.random.default_rng(7)
    out = {}
    for kind in [Q.Q8_0, Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q4_K, Q.Q6_K, Q.F16, Q.BF16]:
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        rows = random.integers(0, 256, (256 // elements * 4, size), dtype=np.uint8)
        scale = lambda: random.normal(0, 1, rows.shape[0]).astype(np.float16).view(np.uint8).reshape(-1, 2)
        places = {Q.Q8_0: [0], Q.Q4_0: [0], Q.Q4_1: [0, 2], Q.Q5_0: [0], Q.Q4_K: [0, 2], Q.Q6_K: [size - 2], Q.F16: [0], Q.BF16: []}
        for at in places[kind]:
            rows[:, at : at + 2] = scale()
        if kind == Q.BF16:
            rows[:, 1] = rows[:, 1] & 0x80 | 0x3F
        out[kind.name + ".bytes"] = rows.reshape(-1)
        out[kind.name + ".values"] = gguf.dequantize(rows.reshape(4, -1), kind).astype(np.float32).reshape(-1)
    save_file(out, OUT / "blocks.safetensors")


model()
blocks()
