"""300 reloads of one model (30 in the short run) while 200 requests a second of every kind come: none lost, none wrong."""
import os
import queue
import random
import threading
import time

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from conftest import REPEAT
from test_ensemble import chain
from test_sequences import OLDEST, config
from tritonclient.utils import InferenceServerException
from trireme_server import Server, identity, write_model

FULL = bool(os.environ.get("TRIREME_TEST_FULL"))
RELOADS = 300 if FULL else 30
SEED = int(os.environ.get("TRIREME_SEED", "20261126"))
WORKERS, RATE = 10, 200
# A reload begins so long after the one before: traffic comes between them, too.
PAUSE_S = 0.06


def group(count):
    return f"instance_group {{ count: {count} }}\n"


def write_m(repository, extra):
    write_model(repository, "m", identity("m", extra="version_policy { all { } }\n" + extra))


class Reloads:
    """One reload after the other, of every kind in turn."""

    def __init__(self, repository, server):
        self.repository, self.server, self.done = repository, server, 0
        self.count = 1

    def instances(self):
        self.count = self.count % 4 + 1
        write_m(self.repository, "dynamic_batching { }\n" + group(self.count))
        return True

    def version(self):
        (self.repository / "m" / "2").mkdir()
        return True

    def without_the_version(self):
        (self.repository / "m" / "2").rmdir()
        return True

    def settings(self):
        write_m(self.repository, f"dynamic_batching {{ max_queue_delay_microseconds: {self.done % 3 * 1000} }}\n" + group(2))
        return True

    def no_batcher(self):
        write_m(self.repository, group(3))
        return True

    def broken(self):
        write_m(self.repository, "dynamic_batching { preferred_batch_size: [ 100000 ] }\n")
        return False

    def run(self, times):
        kinds = [self.instances, self.version, self.settings, self.broken, self.no_batcher, self.without_the_version]
        with httpclient.InferenceServerClient(f"127.0.0.1:{self.server.http}", network_timeout=60) as client:
            while self.done < times:
                good = kinds[self.done % len(kinds)]()
                try:
                    client.load_model("m")
                    assert good, "a broken configuration was loaded"
                except InferenceServerException as error:
                    assert not good, f"reload {self.done}: {error}"
                self.done += 1
                time.sleep(PAUSE_S)


class Worker(threading.Thread):
    """A share of the traffic, each kind by chance. Every answer is checked; the first that is wrong ends it."""

    def __init__(self, server, number, over):
        super().__init__(daemon=True)
        self.server, self.number, self.over = server, number, over
        self.rng = random.Random(f"{SEED} {number}")
        self.counts, self.failure, self.requests = {}, None, 0

    def run(self):
        kinds = [(self.http, 30), (self.grpc, 30), (self.one_version, 10), (self.ensemble, 12), (self.stream, 6), (self.sequence, 6), (self.cancel, 6)]
        self.https = httpclient.InferenceServerClient(f"127.0.0.1:{self.server.http}", network_timeout=60)
        self.grpcs = grpcclient.InferenceServerClient(f"127.0.0.1:{self.server.grpc}")
        start, kind = time.monotonic(), None
        try:
            while not self.over.is_set():
                [kind] = self.rng.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])
                self.requests += kind()
                self.counts[kind.__name__] = self.counts.get(kind.__name__, 0) + 1
                # An open loop: who is late hurries.
                due = start + self.requests * WORKERS / RATE
                self.over.wait(max(0, due - time.monotonic()))
        except Exception as error:  # noqa: BLE001  the test tells it with what was asked
            self.failure = f"{kind.__name__}, request {self.requests} of worker {self.number}: {error!r}"
            self.over.set()
        finally:
            self.https.close()
            self.grpcs.close()

    def value(self):
        return np.array([[self.rng.random() for _ in range(4)] for _ in range(self.rng.choice([1, 1, 2]))], np.float32)

    def tensors(self, module, **arrays):
        types = {"f": "FP32", "i": "INT32", "u": "UINT32"}
        tensors = []
        for name, array in arrays.items():
            tensors.append(module.InferInput(name, list(array.shape), types[array.dtype.kind]))
            tensors[-1].set_data_from_numpy(array)
        return tensors

    def same(self, module, client, model, version=""):
        value = self.value()
        answer = client.infer(model, self.tensors(module, INPUT0=value), model_version=version)
        assert np.array_equal(answer.as_numpy("OUTPUT0"), value), (model, value, answer.as_numpy("OUTPUT0"))
        return answer

    def http(self):
        answer = self.same(httpclient, self.https, "m").get_response()
        assert answer["model_name"] == "m" and answer["model_version"] in ("1", "2"), answer
        return 1

    def grpc(self):
        answer = self.same(grpcclient, self.grpcs, "m").get_response()
        assert answer.model_name == "m" and answer.model_version in ("1", "2"), answer
        return 1

    def one_version(self):
        assert self.same(grpcclient, self.grpcs, "m", "1").get_response().model_version == "1"
        return 1

    def ensemble(self):
        module, client = self.rng.choice([(httpclient, self.https), (grpcclient, self.grpcs)])
        self.same(module, client, "chain")
        return 1

    def sequence(self):
        module, client = self.rng.choice([(httpclient, self.https), (grpcclient, self.grpcs)])
        total, length, name = 0, self.rng.randint(2, 4), self.rng.getrandbits(62) + 1
        for at in range(length):
            value = self.rng.randint(-1000, 1000)
            total += value
            answer = client.infer("sums", self.tensors(module, INPUT=np.full((1, 1), value, np.int32)),
                                  sequence_id=name, sequence_start=at == 0, sequence_end=at == length - 1)
            assert answer.as_numpy("OUTPUT")[0, 0] == total
        return length

    def stream(self):
        values = [self.rng.randint(-99, 99) for _ in range(self.rng.randint(1, 5))]
        answers, found = queue.Queue(), []
        with grpcclient.InferenceServerClient(f"127.0.0.1:{self.server.grpc}") as client:
            client.start_stream(lambda result, error: answers.put((result, error)))
            client.async_stream_infer("repeat_int32", self.tensors(
                grpcclient, IN=np.array(values, np.int32), DELAY=np.full(len(values), 2, np.uint32), WAIT=np.zeros(1, np.uint32)))
            for _ in values:
                result, error = answers.get(timeout=30)
                assert error is None, error
                found.append(int(result.as_numpy("OUT")[0]))
            client.stop_stream()
        assert found == values
        return 1

    def cancel(self):
        """Before, while or after it runs: an answer that is right, or the cancellation."""
        value, answers = self.value(), queue.Queue()
        model = self.rng.choice(["m", "slow"])
        call = self.grpcs.async_infer(model, self.tensors(grpcclient, INPUT0=value), lambda result, error: answers.put((result, error)))
        self.over.wait(self.rng.random() * 0.03)
        call.cancel()
        result, error = answers.get(timeout=30)
        assert error is None or "CANCELLED" in str(error.status()), error
        assert result is None or np.array_equal(result.as_numpy("OUTPUT0"), value)
        return 1


def pending(server):
    import urllib.request
    text = urllib.request.urlopen(f"http://127.0.0.1:{server.metrics}/metrics", timeout=30).read().decode()
    return [line for line in text.splitlines() if line.startswith("nv_inference_pending_request_count{") and not line.endswith(" 0")]


def test_reloads_under_mixed_traffic(tmp_path):
    print(f"seed {SEED} (TRIREME_SEED=…), {RELOADS} reloads")
    write_m(tmp_path, "dynamic_batching { }\n")
    write_model(tmp_path, "chain", chain("chain", "m", 3))
    write_model(tmp_path, "sums", 'name: "sums"\n' + config(OLDEST, corrid="TYPE_UINT64", extra=group(2)))
    write_model(tmp_path, "repeat_int32", REPEAT)
    write_model(tmp_path, "slow", identity("slow", batch=2, extra=group(2), parameters={"execute_delay_ms": 20}))
    with Server(tmp_path, "--model-control-mode=explicit", "--load-model=*") as server:
        over = threading.Event()
        workers = [Worker(server, number, over) for number in range(WORKERS)]
        start = time.monotonic()
        for worker in workers:
            worker.start()
        reloads, failure = Reloads(tmp_path, server), None
        try:
            reloads.run(RELOADS)
        except Exception as error:  # noqa: BLE001  after what the workers have to say
            failure = error
        over.set()
        seconds = time.monotonic() - start
        for worker in workers:
            worker.join(60)
        failures = [worker.failure for worker in workers if worker.failure or worker.is_alive()]
        assert not failures and failure is None, f"seed {SEED}: {failures} {failure}\n{server.output()[-3000:]}"
        requests = sum(worker.requests for worker in workers)
        kinds = {name: sum(worker.counts.get(name, 0) for worker in workers) for name in workers[0].counts}
        print(f"{requests} requests in {seconds:.1f} s, {requests / seconds:.0f} a second: {kinds}")
        # A slow machine is no failure of the server, but the test has to be what it says.
        assert requests / seconds > (RATE * 0.9 if FULL else RATE / 4)
        assert len(kinds) == 7
        end = time.monotonic() + 10
        while left := pending(server):
            assert time.monotonic() < end, left
            time.sleep(0.02)
        assert "panicked" not in server.output()
        server.alive()
