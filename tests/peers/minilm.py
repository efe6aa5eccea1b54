#!/usr/bin/env python3
"""Sentences a second of MiniLM in ONNX, the same batches with the same number in flight; prints the number.

  minilm.py direct MODEL.onnx ROWS TOKENS BATCHES FLIGHT    ONNX Runtime called directly, as it is by default
  minilm.py server HOST:PORT  ROWS TOKENS BATCHES FLIGHT    model `minilm_onnx` of a server, over HTTP and this client
  minilm.py write HOST:PORT MODEL.onnx DIR ROWS TOKENS ...  DIR/batch.{body,header} for a loader, the server's answer compared
"""
import concurrent.futures
import pathlib
import sys
import threading
import time

import numpy as np

NAMES = ("input_ids", "attention_mask", "token_type_ids")


def batch(rows, tokens):
    ids = np.random.default_rng(0).integers(1000, 30000, (rows, tokens), np.int64)
    return dict(zip(NAMES, (ids, np.ones_like(ids), np.zeros_like(ids))))


def direct(model, given):
    """Makes a runner on the thread that is to use it."""
    import onnxruntime
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return lambda: lambda: session.run(None, given)[0]


def tensors(given):
    import tritonclient.http as http
    made = []
    for name, value in given.items():
        tensor = http.InferInput(name, list(value.shape), "INT64")
        tensor.set_data_from_numpy(value)
        made.append(tensor)
    return made


def write(address, model, folder, given):
    import tritonclient.http as http
    outputs = [http.InferRequestedOutput("last_hidden_state")]
    body, length = http.InferenceServerClient.generate_request_body(tensors(given), outputs=outputs)
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "batch.body").write_bytes(body)
    (folder / "batch.header").write_text(str(length))
    client = http.InferenceServerClient(address, network_timeout=600)
    # Warm, as the peer is.
    for _ in range(2):
        answer = client.infer("minilm_onnx", tensors(given), outputs=outputs)
    if not np.array_equal(answer.as_numpy("last_hidden_state"), direct(model, given)()()):
        sys.exit(f"{address} answers otherwise than ONNX Runtime")


def server(address, given):
    """Makes a runner on the thread that is to use it: a client cannot change threads."""
    import tritonclient.http as http
    inputs = tensors(given)

    def runner():
        client = http.InferenceServerClient(address, network_timeout=600)
        return lambda: client.infer("minilm_onnx", inputs).as_numpy("last_hidden_state")

    return runner


def times(runner, shape, count, together):
    """Runs `count` batches once all threads are ready; when that was and when they were done."""
    run = runner()
    for _ in range(2):
        answer = run()
        assert answer.shape == shape, answer.shape
    together.wait()
    start = time.perf_counter()
    for _ in range(count):
        run()
    return start, time.perf_counter()


if __name__ == "__main__":
    if sys.argv[1:2] == ["write"]:
        address, model, folder, rows, tokens, *_ = sys.argv[2:]
        sys.exit(write(address, model, folder, batch(int(rows), int(tokens))))
    kind, where, *numbers = sys.argv[1:]
    rows, tokens, batches, flight = map(int, numbers)
    runner = {"direct": direct, "server": server}[kind](where, batch(rows, tokens))
    together = threading.Barrier(flight)
    with concurrent.futures.ThreadPoolExecutor(flight) as pool:
        made = [pool.submit(times, runner, (rows, tokens, 384), batches // flight, together) for _ in range(flight)]
        starts, ends = zip(*(one.result() for one in made))
    print(rows * (batches // flight) * flight / (max(ends) - min(starts)))
