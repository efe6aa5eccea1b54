"""Restarts lose nothing: two servers behind a balancer are restarted in turn under steady load, and servers are ended while
streams are open. A loss is a request that is refused, reset, cut short or answered wrongly; no client asks twice.

50 restarts and 20 ends with TRIREME_TEST_FULL, fewer without; TRIREME_ROLLOUT_PEER adds the same for tritonserver 2.51."""
import collections
import http.client
import json
import os
import signal
import threading
import time

import numpy as np
import peer
import pytest
import tritonclient.grpc as grpcclient
from balancer import Balancer
from trireme_server import Server, free_port, identity, io, write_model

FULL = "TRIREME_TEST_FULL" in os.environ
RESTARTS, ENDS = (50, 20) if FULL else (8, 4)
EVERY = 0.025


def start(repository, ports, who):
    flags = [f"--{name}-port={port}" for name, port in zip(("http", "grpc"), ports)]
    if who == "theirs":
        server = Server(repository, "--cache-directory", str(peer.HOME / "caches"), "--pinned-memory-pool-byte-size=0", *flags,
                        argv0=peer.HOME / "bin" / "tritonserver", backends=peer.HOME / "backends", wait=False)
    else:
        server = Server(repository, "--drain-delay=1", *flags, wait=False)
    server.http, server.grpc = ports
    server.wait_open()
    while server.raw("GET", "/v2/health/ready")[0] != 200:
        time.sleep(0.02)
    return server


class Load:
    """Clients that each ask one thing after the other, at a steady pace."""

    def __init__(self, balancer):
        self.ended, self.count, self.losses = threading.Event(), collections.Counter(), []
        kinds = [("http over tcp", self.over_http, balancer.tcp)] * 4 + [("http", self.over_http, balancer.http)] * 3
        kinds += [("grpc", self.over_grpc, balancer.grpc)] * 3
        self.threads = [threading.Thread(target=self.run, args=kind) for kind in kinds]

    def run(self, name, open_client, port):
        ask, close = open_client(port)
        due, number = time.monotonic(), 0
        while not self.ended.is_set():
            number += 1
            try:
                answer = ask(float(number))
                if answer != [float(number)] * 4:
                    raise ValueError(f"the answer to {number} is {answer}")
                self.count[name] += 1
            except Exception as error:  # noqa: BLE001
                self.losses.append(f"{name}: {type(error).__name__} {error}")
                close()
                ask, close = open_client(port)
            due = max(due + EVERY, time.monotonic() - EVERY)
            time.sleep(max(0, due - time.monotonic()))
        close()

    @staticmethod
    def over_http(port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

        def ask(value):
            inputs = [{"name": "INPUT0", "shape": [1, 4], "datatype": "FP32", "data": [value] * 4}]
            connection.request("POST", "/v2/models/identity/infer", json.dumps({"inputs": inputs}))
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise ValueError(f"status {answer.status}: {text[:200]}")
            return json.loads(text)["outputs"][0]["data"]

        return ask, connection.close

    @staticmethod
    def over_grpc(port):
        client = grpcclient.InferenceServerClient(f"127.0.0.1:{port}")

        def ask(value):
            tensor = grpcclient.InferInput("INPUT0", [1, 4], "FP32")
            tensor.set_data_from_numpy(np.full((1, 4), value, np.float32))
            return client.infer("identity", [tensor], client_timeout=20).as_numpy("OUTPUT0").ravel().tolist()

        return ask, client.close

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        for thread in self.threads:
            thread.join(60)


def restarts(folder, who, count):
    """What a pair loses over so many restarts, and how much it answered."""
    config = identity(extra="dynamic_batching { }\n", parameters={"execute_delay_ms": 10})
    if who == "theirs":
        config = 'name: "identity"\nmax_batch_size: 64\n' + io("input", "INPUT0", "FP32", "-1") + io("output", "OUTPUT0", "FP32", "-1")
        config += peer.behaviour("identity", "theirs", delay_ms=10)
    write_model(folder, "identity", config)
    ports = [(free_port(), free_port()) for _ in range(2)]
    servers = [start(folder, pair, who) for pair in ports]
    work = folder.parent / f"balancer-{who}"
    work.mkdir()
    codes = collections.Counter()
    try:
        with Balancer(work, ports) as balancer, Load(balancer) as load:
            time.sleep(1)
            for number in range(count):
                place = number % 2
                codes[servers[place].stop(60)] += 1
                with servers[place]:
                    pass
                servers[place] = start(folder, ports[place], who)
                # As a rollout does: the next one is told when this one is in the balancer again.
                time.sleep(0.5)
    finally:
        for server in servers:
            with server:
                server.stop(60)
    print(f"{who}: {count} restarts, {dict(load.count)} answered, {len(load.losses)} lost, exit codes {dict(codes)}")
    print("\n".join(f"  {loss[:200]}" for loss in load.losses[:10]))
    return load, codes


def test_restarts_of_a_pair_lose_nothing(tmp_path):
    load, codes = restarts(tmp_path / "models", "ours", RESTARTS)
    assert load.losses == [] and codes == {0: RESTARTS}
    # Each kind of client was at work all the time.
    assert all(load.count[name] > 30 * RESTARTS for name in ("http over tcp", "http", "grpc")), load.count


@pytest.mark.skipif("TRIREME_ROLLOUT_PEER" not in os.environ, reason="a figure beside ours, asked for by TRIREME_ROLLOUT_PEER")
def test_the_peer_loses_some(tmp_path):
    peer.install()
    load, _ = restarts(tmp_path / "models", "theirs", RESTARTS)
    assert load.losses


STREAM = 16


def over_sse(port, told):
    """A stream of server-sent events, to its end."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    body = {"IN": list(range(STREAM)), "DELAY": [100] * STREAM, "WAIT": 0}
    connection.request("POST", "/v2/models/repeat/generate_stream", json.dumps(body))
    answer = connection.getresponse()
    told.release()
    events = [json.loads(line[6:]) for line in answer.read().decode().split("\n\n") if line]
    return answer.status == 200 and [event["OUT"] for event in events] == list(range(STREAM))


def over_grpc_stream(port, told):
    """A stream of gRPC, until its last answer."""
    answers, last = [], threading.Event()

    def take(result, error):
        if error:
            answers.append(error)
        elif result.get_response().parameters["triton_final_response"].bool_param:
            last.set()
        else:
            answers.append(result.as_numpy("OUT").item())
            if len(answers) == 1:
                told.release()

    client = grpcclient.InferenceServerClient(f"127.0.0.1:{port}")
    client.start_stream(take)
    inputs = [("IN", np.arange(STREAM, dtype=np.int32)), ("DELAY", np.full(STREAM, 100, np.uint32)), ("WAIT", np.zeros(1, np.uint32))]
    tensors = []
    for name, values in inputs:
        tensors.append(grpcclient.InferInput(name, list(values.shape), "INT32" if name == "IN" else "UINT32"))
        tensors[-1].set_data_from_numpy(values)
    client.async_stream_infer("repeat", tensors, enable_empty_final_response=True)
    last.wait(30)
    client.stop_stream()
    client.close()
    return last.is_set() and answers == list(range(STREAM))


@pytest.mark.parametrize("delay", [0, 1])
def test_streams_that_are_open_come_to_their_end(tmp_path, delay):
    repeat = 'name: "repeat"\nbackend: "repeat"\nmax_batch_size: 0\nmodel_transaction_policy { decoupled: true }\n'
    repeat += io("input", "IN", "INT32", "-1") + io("input", "DELAY", "UINT32", "-1") + io("input", "WAIT", "UINT32", "1")
    repeat += io("output", "OUT", "INT32", "1") + io("output", "IDX", "UINT32", "1") + "instance_group [{ count: 8 }]\n"
    write_model(tmp_path, "repeat", repeat)
    whole = 0
    for _ in range(ENDS // 2):
        with Server(tmp_path, f"--drain-delay={delay}") as server:
            told, results = threading.Semaphore(0), []

            def one(stream, port, told=told, results=results):
                try:
                    results.append(stream(port, told))
                except Exception as error:  # noqa: BLE001
                    results.append(repr(error))

            kinds = [(over_sse, server.http)] * 4 + [(over_grpc_stream, server.grpc)] * 4
            threads = [threading.Thread(target=one, args=kind) for kind in kinds]
            for thread in threads:
                thread.start()
            for _ in threads:
                assert told.acquire(timeout=20), results
            server.process.send_signal(signal.SIGTERM)
            for thread in threads:
                thread.join(60)
            assert server.process.wait(30) == 0, server.output()
            assert results == [True] * len(threads), results
            whole += len(results)
    print(f"{ENDS // 2} ends with a delay of {delay} s: {whole} open streams, all whole")
