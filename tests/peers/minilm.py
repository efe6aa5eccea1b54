#!/usr/bin/env python3
"""Sentences a second of MiniLM in ONNX, the same batches one after the other; prints the number.

  minilm.py direct MODEL.onnx ROWS TOKENS BATCHES    ONNX Runtime called directly, as it is by default
  minilm.py server HOST:PORT  ROWS TOKENS BATCHES    model `minilm_onnx` of a server, over HTTP
"""
import sys
import time

import numpy as np

NAMES = ("input_ids", "attention_mask", "token_type_ids")


def batch(rows, tokens):
    ids = np.random.default_rng(0).integers(1000, 30000, (rows, tokens), np.int64)
    return dict(zip(NAMES, (ids, np.ones_like(ids), np.zeros_like(ids))))


def direct(model, given):
    import onnxruntime
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, given)[0]


def server(address, given):
    import tritonclient.http as http
    client = http.InferenceServerClient(address, network_timeout=600)
    inputs = []
    for name, value in given.items():
        tensor = http.InferInput(name, list(value.shape), "INT64")
        tensor.set_data_from_numpy(value)
        inputs.append(tensor)
    return lambda: client.infer("minilm_onnx", inputs).as_numpy("last_hidden_state")


if __name__ == "__main__":
    kind, where, *numbers = sys.argv[1:]
    rows, tokens, batches = map(int, numbers)
    run = {"direct": direct, "server": server}[kind](where, batch(rows, tokens))
    for _ in range(2):
        answer = run()
    assert answer.shape == (rows, tokens, 384), answer.shape
    start = time.perf_counter()
    for _ in range(batches):
        run()
    print(rows * batches / (time.perf_counter() - start))
