import json
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


# A language model of a few kilobytes, whose weights are made up.
TINY = {
    "architectures": ["LlamaForCausalLM"], "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "eos_token_id": 500,
}


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A real server: its routes and metrics are what manifests may name."""
    repository = tmp_path_factory.mktemp("models")
    write_model(repository, "identity", identity(parameters={"execute_delay_ms": 200}) + "response_cache { enable: true }\n")
    failing = identity("failing").replace('"identity"', '"hostile"', 1)
    write_model(repository, "failing", failing + 'parameters { key: "fault" value { string_value: "fail" } }\n')
    tiny = 'name: "tiny"\nbackend: "cpu"\nmax_batch_size: 4\n'
    for key, value in (("load_format", "dummy"), ("max_tokens_in_paged_kv_cache", 2048)):
        tiny += f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
    write_model(repository, "tiny", tiny, files=[("1/config.json", json.dumps(TINY).encode())])
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
    """The names on /metrics, as expressions write them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return {re.match("[a-zA-Z_:][a-zA-Z0-9_:]*", line)[0] for line in lines if line and not line.startswith("#")}
