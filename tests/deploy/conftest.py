import pathlib
import re
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

sys.path[:0] = [str(pathlib.Path(__file__).parent), str(pathlib.Path(__file__).parents[1] / "python")]

import tools  # noqa: E402
from trireme_server import BINARY, Server, identity, write_model  # noqa: E402


@pytest.fixture(scope="session")
def helm(tmp_path_factory):
    return tools.unpack_helm(tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A real server: its routes and metrics are what manifests may name."""
    repository = tmp_path_factory.mktemp("models")
    write_model(repository, "identity", identity(parameters={"execute_delay_ms": 200}) + "response_cache { enable: true }\n")
    with Server(repository, "--cache-config", "local,size=1048576") as server:
        yield server


@pytest.fixture(scope="session")
def routes(server):
    def known(path):
        try:
            with urllib.request.urlopen(server.url(path), timeout=5) as answer:
                return answer.status < 400
        except urllib.error.HTTPError as error:
            return error.code != 404

    return known


@pytest.fixture(scope="session")
def server_flags():
    """The flags that `trireme serve` works with."""
    return flags_of("serve")


@pytest.fixture(scope="session")
def batch_flags():
    return flags_of("batch")


def flags_of(command):
    help_text = subprocess.run([BINARY, command, "-h"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"--[a-z0-9-]+", help_text))


@pytest.fixture(scope="session")
def metrics(server):
    """The names on /metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return {line.split()[2] for line in lines if line.startswith("# TYPE ")}
