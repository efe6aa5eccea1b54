"""The same models and the same requests for ours and for a real tritonserver."""
import concurrent.futures
import contextlib
import json
import queue
import time

import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from exposition import scrape
from peer import behaviour
from tritonclient.utils import InferenceServerException
from trireme_server import io, write_model

MODULES = {"http": httpclient, "grpc": grpcclient}
# How long a request holds an instance while others are put behind it.
HOLD_MS = 600


def write_models(repository, server):
    def one(name, kind, batch=8, dtype="FP32", extra="", delay_ms=0, versions=(1,), names=("INPUT0", "OUTPUT0")):
        text = f'name: "{name}"\nmax_batch_size: {batch}\n' + behaviour(kind, server, delay_ms)
        text += io("input", names[0], dtype, "-1") + io("output", names[1], dtype, "-1")
        if "instance_group" not in extra:
            extra += "instance_group [ { count: 1 kind: KIND_CPU } ]\n"
        write_model(repository, name, text + extra, versions)

    one("plain", "identity")
    one("batched", "identity", extra="dynamic_batching { }\n", delay_ms=HOLD_MS)
    one("flat", "identity", batch=0)
    one("pair", "identity", extra="dynamic_batching { }\ninstance_group [ { count: 2 kind: KIND_CPU } ]\n")
    one("tagged", "identity", extra='metric_tags { key: "site" value: "north" }\nmetric_tags { key: "a" value: "b" }\n')
    one("versions", "identity", versions=(1, 3), extra="version_policy { all { } }\n")
    one("unused", "identity")
    one("cached", "identity", extra="response_cache { enable: true }\n")
    one("failing", "fail", extra="dynamic_batching { }\n")
    one("narrow", "identity", batch=1, delay_ms=HOLD_MS, extra="dynamic_batching { default_queue_policy { max_queue_size: 1 } }\n")
    one("hasty", "identity", batch=1, delay_ms=HOLD_MS,
        extra="dynamic_batching { default_queue_policy { default_timeout_microseconds: 100000 } }\n")
    one("left", "identity", batch=1, delay_ms=HOLD_MS, extra="dynamic_batching { }\n")
    write_model(repository, "sums", 'name: "sums"\nmax_batch_size: 8\n' + behaviour("add_sub", server)
                + io("input", "INPUT0", "INT32", "16") + io("input", "INPUT1", "INT32", "16")
                + io("output", "OUTPUT0", "INT32", "16") + io("output", "OUTPUT1", "INT32", "16")
                + "instance_group [ { kind: KIND_CPU } ]\n")
    repeat = ('name: "repeat"\n' + behaviour("repeat", server) + "max_batch_size: 0\nmodel_transaction_policy { decoupled: true }\n"
              + io("input", "IN", "INT32", "-1") + io("input", "DELAY", "UINT32", "-1") + io("input", "WAIT", "UINT32", "1")
              + io("output", "OUT", "INT32", "1") + io("output", "IDX", "UINT32", "1") + "instance_group [ { kind: KIND_CPU } ]\n")
    write_model(repository, "repeat", repeat)
    write_model(repository, "chain", chain("chain", "plain", "pair"))
    write_model(repository, "chain_failing", chain("chain_failing", "plain", "failing"))
    write_model(repository, "chain_cached", chain("chain_cached", "cached", "plain"))


def chain(name, *steps):
    """An ensemble of identities, one after the other."""
    text = f'name: "{name}"\nplatform: "ensemble"\nmax_batch_size: 8\n' + io("input", "INPUT0", "FP32", "-1") + io("output", "OUTPUT0", "FP32", "-1")
    tensors = ["INPUT0", *[f"middle{at}" for at in range(1, len(steps))], "OUTPUT0"]
    between = [f'{{ model_name: "{model}" model_version: -1 input_map {{ key: "INPUT0" value: "{tensors[at]}" }} '
               f'output_map {{ key: "OUTPUT0" value: "{tensors[at + 1]}" }} }}' for at, model in enumerate(steps)]
    return text + f"ensemble_scheduling {{ step [ {', '.join(between)} ] }}\n"


class Traffic:
    """Sends the requests to one server; each part waits for what it has caused, so that the counts are exact."""

    def __init__(self, server):
        self.server = server

    def client(self, protocol):
        """A client of its own for each call: the HTTP client belongs to the thread that made it."""
        if protocol == "http":
            return httpclient.InferenceServerClient(f"127.0.0.1:{self.server.http}", network_timeout=60)
        return grpcclient.InferenceServerClient(f"127.0.0.1:{self.server.grpc}")

    def tensor(self, protocol, name, array, datatype):
        tensor = MODULES[protocol].InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array)
        return tensor

    def ask(self, protocol, model, array, name="INPUT0", **options):
        array = np.asarray(array, np.float32)
        with self.client(protocol) as client:
            answer = client.infer(model, [self.tensor(protocol, name, array, "FP32")], **options)
        assert np.array_equal(answer.as_numpy("OUTPUT0"), array), model

    def refused(self, protocol, model, array, says, **options):
        try:
            self.ask(protocol, model, array, **options)
        except InferenceServerException as error:
            assert says in str(error), error
        else:
            raise AssertionError(f"{model} answered, it should have said {says}")

    def pending(self, model):
        family = scrape(self.server.metrics)["nv_inference_pending_request_count"]
        return sum(value for (_, labels), value in family.samples.items() if ("model", model) in labels)

    def until(self, what, true):
        end = time.monotonic() + 20
        while not true():
            assert time.monotonic() < end, f"{what} did not come about"
            time.sleep(0.005)

    @contextlib.contextmanager
    def busy(self, model):
        """While the only instance of `model` computes and nothing waits for it."""
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            first = pool.submit(self.ask, "grpc", model, [[0.5]])
            # There is no sign of a request that runs; the wait is short beside the time for which it holds the instance.
            time.sleep(HOLD_MS / 4000)
            self.until("an instance that has taken its request", lambda: self.pending(model) == 0)
            yield
            first.result()

    def run(self):
        self.usual()
        self.batches()
        self.cached()
        self.ensembles()
        self.decoupled()
        self.failures()
        self.bad_requests()
        self.a_full_queue()
        self.a_timeout()
        self.a_cancel()
        self.settle()

    def settle(self):
        """Waits until nothing is counted any more: the peer counts a request after its answer has left."""
        last = {}

        def still():
            nonlocal last
            before, last = last, {name: family.samples for name, family in scrape(self.server.metrics).items() if family.kind == "counter"}
            time.sleep(0.1)
            return before == last

        self.until("an end of counting", still)

    def usual(self):
        for protocol in MODULES:
            for model in ("plain", "pair", "tagged"):
                self.ask(protocol, model, [[1, 2, 3]])
                self.ask(protocol, model, [[1, 2], [3, 4]])
            self.ask(protocol, "flat", [1, 2, 3])
            self.ask(protocol, "versions", [[1]], model_version="1")
            self.ask(protocol, "versions", [[1]])
            a, b = np.arange(32, dtype=np.int32).reshape(2, 16), np.full((2, 16), 3, np.int32)
            with self.client(protocol) as client:
                answer = client.infer(
                    "sums", [self.tensor(protocol, "INPUT0", a, "INT32"), self.tensor(protocol, "INPUT1", b, "INT32")])
            assert np.array_equal(answer.as_numpy("OUTPUT0"), a + b) and np.array_equal(answer.as_numpy("OUTPUT1"), a - b)
        body = {"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}
        status, _, answer = self.server.raw("POST", "/v2/models/plain/infer", json.dumps(body).encode())
        assert status == 200 and json.loads(answer)["outputs"][0]["data"] == [1, 2]

    def batches(self):
        """Five requests that come while the instance is busy are one batch; those of unlike shape are not."""
        with self.busy("batched"), concurrent.futures.ThreadPoolExecutor(5) as pool:
            asked = [pool.submit(self.ask, protocol, "batched", [[at]]) for at, protocol in enumerate(["http", "http", "http", "grpc", "grpc"])]
            self.until("five waiting requests", lambda: self.pending("batched") == 5)
            [one.result() for one in asked]
        with self.busy("batched"), concurrent.futures.ThreadPoolExecutor(2) as pool:
            asked = [pool.submit(self.ask, "http", "batched", [[1] * width]) for width in (2, 3)]
            self.until("two waiting requests", lambda: self.pending("batched") == 2)
            [one.result() for one in asked]

    def cached(self):
        for protocol in MODULES:
            for value in (1, 2, 1, 1):
                self.ask(protocol, "cached", [[value, value]])

    def ensembles(self):
        for protocol in MODULES:
            self.ask(protocol, "chain", [[1, 2]])
            self.ask(protocol, "chain", [[1], [2]])
            self.refused(protocol, "chain_failing", [[1, 2]], "asked to fail")
            for value in (8, 9, 8):
                self.ask(protocol, "chain_cached", [[value]])

    def decoupled(self):
        for values in ([1, 2, 3], [4], []):
            answers = queue.Queue()
            with self.client("grpc") as client:
                client.start_stream(lambda result, error: answers.put((result, error)))
                client.async_stream_infer("repeat", [
                    self.tensor("grpc", "IN", np.array(values, np.int32), "INT32"),
                    self.tensor("grpc", "DELAY", np.array([3] * len(values), np.uint32), "UINT32"),
                    self.tensor("grpc", "WAIT", np.array([0], np.uint32), "UINT32"),
                ], enable_empty_final_response=True)
                found = []
                while True:
                    result, error = answers.get(timeout=30)
                    assert error is None, error
                    if (out := result.as_numpy("OUT")) is not None:
                        found.append(int(out[0]))
                    if result.get_response().parameters["triton_final_response"].bool_param:
                        break
                assert found == values
                client.stop_stream()

    def failures(self):
        for protocol in MODULES:
            for _ in range(2):
                self.refused(protocol, "failing", [[1]], "asked to fail")

    def bad_requests(self):
        for protocol in MODULES:
            self.refused(protocol, "plain", [1], "")
            self.refused(protocol, "plain", [[1]] * 9, "")
            self.refused(protocol, "plain", [[1]], "", name="NOBODY")
            self.refused(protocol, "nobody", [[1]], "")
            self.refused(protocol, "plain", [[1]], "", model_version="7")
        self.server.raw("POST", "/v2/models/plain/infer", b"{")

    def a_full_queue(self):
        with self.busy("narrow"), concurrent.futures.ThreadPoolExecutor(1) as pool:
            waits = pool.submit(self.ask, "http", "narrow", [[1]])
            self.until("a waiting request", lambda: self.pending("narrow") == 1)
            for protocol in MODULES:
                self.refused(protocol, "narrow", [[2]], "Exceeds maximum queue size")
            waits.result()

    def a_timeout(self):
        with self.busy("hasty"):
            self.refused("http", "hasty", [[2]], "Request timeout expired")

    def a_cancel(self):
        with self.client("grpc") as client, self.busy("left"):
            answers = queue.Queue()
            call = client.async_infer("left", [self.tensor("grpc", "INPUT0", np.ones((1, 1), np.float32), "FP32")],
                                      lambda result, error: answers.put((result, error)))
            self.until("a waiting request", lambda: self.pending("left") == 1)
            call.cancel()
            result, error = answers.get(timeout=30)
            assert result is None and "cancel" in str(error).lower(), error
        self.until("the end of both requests", lambda: self.ended("left") == 2)

    def ended(self, model):
        """By the statistics: counters can be off."""
        stats = json.loads(self.server.raw("GET", f"/v2/models/{model}/stats")[2])["model_stats"][0]["inference_stats"]
        return sum(int(stats[one].get("count", 0)) for one in ("success", "fail"))
