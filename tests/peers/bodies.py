#!/usr/bin/env python3
"""Request bodies for loaders, and the same requests through the real client with the answers compared.

  bodies.py write DIR MODEL...         DIR/http-SIZE.{body,header}, DIR/grpc-MODEL-SIZE.body (with its gRPC frame)
  bodies.py check HTTP GRPC MODEL...   every model and size over both protocols; exits 1 on a wrong answer
"""
import pathlib
import sys

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.http as http
from tritonclient.grpc import service_pb2

ELEMENTS = {"small": 16, "big": 262144}  # FP32: 64 bytes and 1 MiB


def tensors(client, size):
    array = np.arange(ELEMENTS[size], dtype=np.float32).reshape(1, -1)
    given = client.InferInput("INPUT0", list(array.shape), "FP32")
    given.set_data_from_numpy(array)
    return array, [given], [client.InferRequestedOutput("OUTPUT0")]


def write(folder, models):
    folder.mkdir(parents=True, exist_ok=True)
    for size in ELEMENTS:
        _, inputs, outputs = tensors(http, size)
        body, header_length = http.InferenceServerClient.generate_request_body(inputs, outputs=outputs)
        (folder / f"http-{size}.body").write_bytes(body)
        (folder / f"http-{size}.header").write_text(str(header_length))
        _, inputs, outputs = tensors(grpc, size)
        for model in models:
            request = service_pb2.ModelInferRequest(model_name=model)
            for tensor in inputs:
                request.inputs.extend([tensor._get_tensor()])
                request.raw_input_contents.extend([tensor._get_content()])
            request.outputs.extend([tensor._get_tensor() for tensor in outputs])
            message = request.SerializeToString()
            frame = b"\0" + len(message).to_bytes(4, "big") + message
            (folder / f"grpc-{model}-{size}.body").write_bytes(frame)


def check(http_url, grpc_url, models):
    for protocol, client, url in (("http", http, http_url), ("grpc", grpc, grpc_url)):
        server = client.InferenceServerClient(url)
        for model in models:
            for size in ELEMENTS:
                array, inputs, outputs = tensors(client, size)
                answer = server.infer(model, inputs, outputs=outputs).as_numpy("OUTPUT0")
                if answer.shape != array.shape or not (answer == array).all():
                    sys.exit(f"{url}: wrong answer from {model} over {protocol}, payload {size}")


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    if command == "write":
        write(pathlib.Path(rest[0]), rest[1:])
    elif command == "check":
        check(rest[0], rest[1], rest[2:])
    else:
        sys.exit(__doc__)
