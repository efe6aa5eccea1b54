"""Sentences per second of onnxruntime on an FP32 BERT, in the form that bench_embed prints.

    python encoder_onnxruntime.py CHECKPOINT IDS VECTORS THREADS REPEAT

`IDS` and `VECTORS` are what bench_embed leaves: the token ids of the sentences (JSON) and our vectors (f32). The ONNX
model is written here from the checkpoint's safetensors, in onnxruntime's own fused operators (Attention,
SkipLayerNormalization, BiasGelu, ...), which is what its transformer optimiser makes of an export. Sentences are sorted
by length and padded to the longest of their batch; the best of several batch sizes counts. Pooling is not timed here.
"""

import json
import statistics
import struct
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

BATCHES = [8, 16, 32, 64, 128, 256]

folder, ids_file, vectors_file = map(Path, sys.argv[1:4])
threads, repeat = int(sys.argv[4]), int(sys.argv[5])
config = json.loads((folder / "config.json").read_text())
heads, eps = config["num_attention_heads"], config["layer_norm_eps"]


def safetensors(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    for name, entry in header.items():
        if entry["dtype"] == "F32":
            begin, end = (8 + length + at for at in entry["data_offsets"])
            yield name, np.frombuffer(data[begin:end], "<f4").reshape(entry["shape"])


def graph():
    weights = dict(safetensors(folder / "model.safetensors"))
    nodes, constants = [], []

    def constant(name, value):
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def take(name):
        return constant(name, weights[name])

    def transposed(name):
        return constant(name, weights[name].T)

    def node(op, inputs, output, domain="com.microsoft", **attributes):
        outputs = output if isinstance(output, list) else [output]
        nodes.append(helper.make_node(op, inputs, outputs, domain=domain, **attributes))
        return outputs[0]

    tables = [take(f"embeddings.{kind}_embeddings.weight") for kind in ("word", "position", "token_type")]
    norm = [take("embeddings.LayerNorm.weight"), take("embeddings.LayerNorm.bias")]
    inputs = ["input_ids", "token_type_ids", *tables, *norm, "attention_mask"]
    hidden = node("EmbedLayerNormalization", inputs, ["embedded", "lengths"], epsilon=eps)
    for i in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{i}"
        parts = [f"{at}.attention.self.{part}" for part in ("query", "key", "value")]
        qkv = constant(f"{at}.qkv.weight", np.concatenate([weights[f"{p}.weight"].T for p in parts], axis=1))
        bias = constant(f"{at}.qkv.bias", np.concatenate([weights[f"{p}.bias"] for p in parts]))
        attended = node("Attention", [hidden, qkv, bias, "lengths"], f"{at}.attended", num_heads=heads)
        hidden = linear_and_norm(node, take, transposed, at, "attention.output", attended, hidden)
        up = node("MatMul", [hidden, transposed(f"{at}.intermediate.dense.weight")], f"{at}.up", domain="")
        gelu = node("BiasGelu", [up, take(f"{at}.intermediate.dense.bias")], f"{at}.gelu")
        hidden = linear_and_norm(node, take, transposed, at, "output", gelu, hidden)
    whole = helper.make_graph(
        nodes,
        "bert",
        [helper.make_tensor_value_info(name, TensorProto.INT32, ["batch", "tokens"])
         for name in ("input_ids", "token_type_ids", "attention_mask")],
        [helper.make_tensor_value_info(hidden, TensorProto.FLOAT, ["batch", "tokens", config["hidden_size"]])],
        constants,
    )
    versions = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(whole, opset_imports=versions, ir_version=8).SerializeToString()


def linear_and_norm(node, take, transposed, at, module, x, residual):
    product = node("MatMul", [x, transposed(f"{at}.{module}.dense.weight")], f"{at}.{module}.product", domain="")
    norm = [take(f"{at}.{module}.LayerNorm.weight"), take(f"{at}.{module}.LayerNorm.bias")]
    inputs = [product, residual, *norm, take(f"{at}.{module}.dense.bias")]
    return node("SkipLayerNormalization", inputs, f"{at}.{module}.out", epsilon=eps)


options = ort.SessionOptions()
options.intra_op_num_threads = threads
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
session = ort.InferenceSession(graph(), options, providers=["CPUExecutionProvider"])

sentences = json.loads(ids_file.read_text())
order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))


def padded(batch):
    ids = np.zeros((len(batch), max(len(sentences[i]) for i in batch)), np.int32)
    mask = np.zeros_like(ids)
    for row, i in enumerate(batch):
        ids[row, : len(sentences[i])], mask[row, : len(sentences[i])] = sentences[i], 1
    return {"input_ids": ids, "token_type_ids": np.zeros_like(ids), "attention_mask": mask}


def measure(size):
    batches = [padded(order[at : at + size]) for at in range(0, len(order), size)]
    times = []
    for _ in range(repeat + 1):
        start = time.perf_counter()
        outputs = [session.run(None, batch)[0] for batch in batches]
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:]), list(zip(batches, outputs))


results = {size: measure(size) for size in BATCHES}
best = min(results, key=lambda size: results[size][0])
seconds, outputs = results[best]
ours = np.fromfile(vectors_file, "<f4").reshape(len(sentences), -1)
row = 0
for batch, output in outputs:
    for states, mask in zip(output, batch["attention_mask"]):
        vector = states[: mask.sum()].mean(axis=0)
        vector /= np.linalg.norm(vector)
        if (cosine := float(vector @ ours[order[row]])) < 0.9999:
            sys.exit(f"sentence {order[row]}: our vector and onnxruntime's have a cosine of {cosine}")
        row += 1
print(
    f"engine=onnxruntime version={ort.__version__} threads={threads} batch={best} sentences={len(sentences)} "
    f"sentences_per_s={len(sentences) / seconds:.1f}"
)
