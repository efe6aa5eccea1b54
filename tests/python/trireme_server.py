"""Starts a real server as a child process and takes it down again."""
import contextlib
import itertools
import os
import pathlib
import random
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("TRIREME_TARGET", ROOT / "target" / "release"))
BINARY = TARGET / "trireme"
BACKENDS = TARGET / "backends"
START_TIMEOUT_S = 60


# Below the range from which the system takes ports for outgoing connections, so that none of these is in the way.
PORTS = itertools.cycle(random.sample(range(20000, 32000), 12000))


def free_port():
    for port in PORTS:
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port


class Server:
    """A running server; `http`, `grpc` and `metrics` are its ports."""

    def __init__(self, repositories, *flags, env=None, argv0=None, backends=BACKENDS, wait=True, binary=BINARY):
        repositories = [repositories] if isinstance(repositories, (str, pathlib.Path)) else list(repositories)
        self.http, self.grpc, self.metrics = free_port(), free_port(), free_port()
        self.log = tempfile.NamedTemporaryFile(prefix="trireme-log-", suffix=".txt", delete=False)
        command = [str(argv0 or binary)] + ([] if argv0 else ["serve"])
        for repository in repositories:
            command += ["--model-repository", str(repository)]
        # Without one the server takes those beside its program.
        command += ["--backend-directory", str(backends)] if backends else []
        command += ["--http-address", "127.0.0.1", "--grpc-address", "127.0.0.1"]
        command += ["--http-port", str(self.http), "--grpc-port", str(self.grpc), "--metrics-port", str(self.metrics)]
        command += list(flags)
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})})
        if wait:
            self.wait_open()

    def url(self, path=""):
        return f"http://127.0.0.1:{self.http}{path}"

    def output(self):
        return pathlib.Path(self.log.name).read_text(errors="replace")

    def wait_open(self):
        """Returns when the HTTP port answers; the ports open only after the start-up models are loaded."""
        end = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.output()}")
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.http), timeout=1).close()
                return
            time.sleep(0.02)
        raise AssertionError(f"the server did not open its port:\n{self.output()}")

    def stop(self, timeout=20):
        """SIGTERM, and the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the server did not end after SIGTERM:\n{self.output()}") from None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.close()
        os.unlink(self.log.name)

    # raw HTTP, for what a well-behaved client cannot send
    def raw(self, method, path, body=None, headers=None, timeout=30):
        request = urllib.request.Request(self.url(path), data=body, headers=headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read()

    def alive(self):
        assert self.process.poll() is None, self.output()
        status, _, _ = self.raw("GET", "/v2/health/ready")
        assert status == 200, self.output()


def io(kind, name, dtype, dims, extra=""):
    return f'{kind} [ {{ name: "{name}" data_type: TYPE_{dtype} dims: [ {dims} ] {extra} }} ]\n'


def write_model(repository, name, config, versions=(1,), files=()):
    """Writes `<repository>/<name>/config.pbtxt` with version directories."""
    directory = pathlib.Path(repository) / name
    for version in versions:
        (directory / str(version)).mkdir(parents=True, exist_ok=True)
    (directory / "config.pbtxt").write_text(config)
    for path, content in files:
        (directory / path).write_bytes(content)
    return directory


def identity(name="identity", dtype="FP32", dims="-1", batch=64, extra="", parameters=None):
    """A configuration of the identity backend with one tensor."""
    text = f'name: "{name}"\nbackend: "identity"\nmax_batch_size: {batch}\n'
    text += io("input", "INPUT0", dtype, dims) + io("output", "OUTPUT0", dtype, dims)
    for key, value in (parameters or {}).items():
        text += f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
    return text + extra
