"""Model repositories in an object store: a real S3 server of its own (moto), the real client that fills it (boto3), and a
server that copies from it."""
import concurrent.futures
import contextlib
import socket
import subprocess
import sys
import time
import uuid

import boto3
import numpy as np
import pytest
import tritonclient.http as httpclient
from botocore.config import Config
from trireme_server import Server, free_port, identity

KEYS = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
# What the machine says of itself must not matter.
CLEAN = {name: "" for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "TRITON_CLOUD_CREDENTIAL_PATH", "TRITON_AWS_MOUNT_DIRECTORY")}
POLL = ("--model-control-mode", "poll", "--repository-poll-secs", "1")


@pytest.fixture(scope="module")
def store():
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            assert process.poll() is None and time.monotonic() < end, "the S3 server does not start"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


class Bucket:
    def __init__(self, store):
        self.name, self.store = f"b-{uuid.uuid4().hex[:12]}", store
        self.client = boto3.client("s3", endpoint_url=store, region_name="us-east-1", aws_access_key_id="somebody",
                                   aws_secret_access_key="secret", config=Config(s3={"addressing_style": "path"}))
        self.client.create_bucket(Bucket=self.name)

    def put(self, key, data=b""):
        self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def model(self, name, config, versions=(1,), prefix="models/"):
        for version in versions:
            self.put(f"{prefix}{name}/{version}/weights", b"w" * 100)
        self.put(f"{prefix}{name}/config.pbtxt", config.encode())

    def delete(self, *keys):
        for key in keys:
            self.client.delete_object(Bucket=self.name, Key=key)

    def url(self, path="/models"):
        return f"s3://{self.store}/{self.name}{path}"


@pytest.fixture
def bucket(store):
    return Bucket(store)


def serve(bucket_url, tmp_path, *flags, **given):
    env = {**CLEAN, **KEYS, "TMPDIR": str(tmp_path), **given.pop("env", {})}
    return Server(bucket_url, *flags, env=env, **given)


def ask(server, name, version="", dims=4):
    with httpclient.InferenceServerClient(f"127.0.0.1:{server.http}", network_timeout=60) as client:
        tensor = httpclient.InferInput("INPUT0", [1, dims], "FP32")
        array = np.arange(dims, dtype=np.float32).reshape(1, dims)
        tensor.set_data_from_numpy(array)
        np.testing.assert_array_equal(client.infer(name, [tensor], model_version=version).as_numpy("OUTPUT0"), array)


def states(server):
    with httpclient.InferenceServerClient(f"127.0.0.1:{server.http}") as client:
        return {(line["name"], line.get("version", "")): line.get("state", "") for line in client.get_model_repository_index()}


def until(server, condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, server.output()
        time.sleep(0.1)


def refused(url, tmp_path, **env):
    with serve(url, tmp_path, env=env, wait=False) as server:
        assert server.process.wait(60) == 1
        return server.output()


def copies(tmp_path):
    return sorted(path.name for path in tmp_path.glob("trireme-s3-*/copy-*"))


def test_models_of_a_bucket_are_served(bucket, tmp_path):
    bucket.model("m", identity("m"), versions=(1, 2))
    # A console makes such objects; the version of an ensemble is nothing else.
    bucket.put("models/m/")
    bucket.put("models/m/3/")
    bucket.put("models/readme.txt", b"beside the models")
    with serve(bucket.url(), tmp_path) as server:
        ask(server, "m")
        assert states(server) == {("m", "3"): "READY"}
        (copy,) = tmp_path.glob("trireme-s3-*")
        assert copy.stat().st_mode & 0o077 == 0, "nobody else may read the copy"
        assert server.stop() == 0
    assert list(tmp_path.glob("trireme-s3-*")) == [], "the copy goes with the server"


def test_a_whole_bucket_and_several_repositories(bucket, store, tmp_path):
    other = Bucket(store)
    bucket.model("m", identity("m"), prefix="")
    other.model("n", identity("n"))
    local = tmp_path / "local"
    (local / "l" / "1").mkdir(parents=True)
    (local / "l" / "config.pbtxt").write_text(identity("l"))
    bare = bucket.url("").replace("s3://http://", "s3://")
    with serve([bare, other.url(), str(local)], tmp_path) as server:
        for name in ("l", "m", "n"):
            ask(server, name)


def test_poll_follows_the_bucket(bucket, tmp_path):
    bucket.model("m", identity("m", extra="version_policy { all { } }\n"))
    with serve(bucket.url(), tmp_path, *POLL) as server:
        ask(server, "m", "1")
        bucket.put("models/m/2/weights", b"new")
        until(server, lambda: states(server).get(("m", "2")) == "READY")
        ask(server, "m", "2")
        bucket.model("n", identity("n"))
        until(server, lambda: states(server).get(("n", "1")) == "READY")
        bucket.put("models/m/config.pbtxt", b"nonsense {")
        until(server, lambda: "config.pbtxt:1:" in server.output())
        ask(server, "m", "2")
        bucket.put("models/m/config.pbtxt", identity("m", dims="5", extra="version_policy { all { } }\n").encode())
        until(server, lambda: "READY" == states(server).get(("m", "1")) and _takes(server, "m", 5))
        bucket.delete("models/n/1/weights", "models/n/config.pbtxt")
        until(server, lambda: states(server).get(("n", "1"), "UNAVAILABLE") == "UNAVAILABLE")
        # What nobody serves from is not kept.
        until(server, lambda: len(copies(tmp_path)) == 1)


def _takes(server, name, dims):
    with contextlib.suppress(Exception):
        ask(server, name, dims=dims)
        return True
    return False


def test_a_model_that_is_being_written_is_never_half_loaded(bucket, tmp_path):
    parameters = "".join(f'parameters {{ key: "p{n}" value {{ string_value: "x" }} }}\n' for n in range(3))
    bucket.model("other", identity("other"))
    with serve(bucket.url(), tmp_path, *POLL) as server:
        # Slowly, and the configuration last: without it the directory could be taken for a model of a known backend.
        for n in range(12):
            bucket.put(f"models/m/1/part{n}", bytes([n]) * 1000)
            time.sleep(0.3)
            assert not any(name == "m" and state == "READY" for (name, _), state in states(server).items())
        bucket.put("models/m/config.pbtxt", identity("m", extra=parameters).encode())
        until(server, lambda: states(server).get(("m", "1")) == "READY")
        seen = {path.name for path in tmp_path.glob("trireme-s3-*/view/m/1/*")}
        assert seen == {f"part{n}" for n in range(12)}
        ask(server, "m")


def test_reloads_under_load_lose_nothing(bucket, tmp_path):
    bucket.model("m", identity("m"))
    with serve(bucket.url(), tmp_path, "--model-control-mode", "explicit", "--load-model", "m") as server:
        stop = []

        def hammer():
            count = 0
            while not stop:
                ask(server, "m")
                count += 1
            return count

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            running = [pool.submit(hammer) for _ in range(4)]
            with httpclient.InferenceServerClient(f"127.0.0.1:{server.http}", network_timeout=60) as client:
                for n in range(10):
                    bucket.put("models/m/1/weights", bytes([n]) * 500)
                    client.load_model("m")
            stop.append(True)
            assert sum(call.result() for call in running) > 0
        until(server, lambda: len(copies(tmp_path)) == 1)


def test_explicit_mode_copies_what_is_loaded(bucket, tmp_path):
    bucket.model("one", identity("one"))
    bucket.model("two", identity("two"))
    with serve(bucket.url(), tmp_path, "--model-control-mode", "explicit", "--load-model", "one") as server:
        ask(server, "one")
        assert len(copies(tmp_path)) == 1
        assert ("two", "") in states(server), "it is known by its name"
        with httpclient.InferenceServerClient(f"127.0.0.1:{server.http}", network_timeout=60) as client:
            client.load_model("two")
            ask(server, "two")
            bucket.model("three", identity("three"))
            client.load_model("three")
            ask(server, "three")
            client.unload_model("three")
            with pytest.raises(Exception, match="failed to poll from model repository"):
                client.load_model("four")


def test_a_failing_store_takes_no_model_away(store, tmp_path):
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            time.sleep(0.05)
        bucket = Bucket(f"http://127.0.0.1:{port}")
        bucket.model("m", identity("m"))
        with serve(bucket.url(), tmp_path, *POLL) as server:
            ask(server, "m")
            process.kill()
            process.wait()
            until(server, lambda: "the repositories are not followed" in server.output(), 90)
            ask(server, "m")
            server.alive()
    finally:
        process.kill()
        process.wait()


def test_what_cannot_be_served_says_why(bucket, store, tmp_path):
    assert "holds no models" in refused(bucket.url(), tmp_path)
    missing = refused(f"s3://{store}/no-such-bucket/models", tmp_path)
    assert f"model repository 's3://{store}/no-such-bucket/models' cannot be copied" in missing and "NoSuchBucket" in missing
    nobody = refused(f"s3://http://127.0.0.1:{free_port()}/bucket", tmp_path)
    assert "cannot be copied" in nobody and "onnect" in nobody
    assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set" in refused(bucket.url(), tmp_path, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    assert "AWS_SECRET_ACCESS_KEY is not" in refused(bucket.url(), tmp_path, AWS_SECRET_ACCESS_KEY="")
    assert "credential files are not read" in refused(bucket.url(), tmp_path, TRITON_CLOUD_CREDENTIAL_PATH="/x.json")
    assert "it names a host, but no bucket behind it" in refused(f"s3://{store}", tmp_path)
    nowhere = refused(bucket.url(), tmp_path, TRITON_AWS_MOUNT_DIRECTORY=str(tmp_path / "nowhere"))
    assert "TRITON_AWS_MOUNT_DIRECTORY names another one" in nowhere
    bucket.model("m", identity("m"))
    assert f"give its parent directory '{bucket.url()}'" in refused(bucket.url("/models/m"), tmp_path)
    bucket.put("models/m/1/" + "x" * 300, b"no file system takes this name")
    assert "cannot be a file" in refused(bucket.url(), tmp_path)


def test_a_copy_lies_where_it_is_told_to(bucket, tmp_path):
    place = tmp_path / "mount"
    place.mkdir()
    bucket.model("m", identity("m"))
    with serve(bucket.url(), tmp_path, env={"TRITON_AWS_MOUNT_DIRECTORY": str(place)}) as server:
        ask(server, "m")
        assert len(list(place.glob("trireme-s3-*"))) == 1
