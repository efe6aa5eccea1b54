"""The command lines of upstream's own manifests start the server as they are, under the name `tritonserver`."""
import os
import signal
import socket
import subprocess
import time

import pytest
import tritonclient.http as httpclient
from manifests import MANIFESTS
from trireme_server import BINARY, free_port, identity, write_model

PORTS = {"http": 8000, "grpc": 8001, "metrics": 8002}


def free(port):
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_a_manifest_starts_the_server(tmp_path, manifest):
    models, program = tmp_path / "models", tmp_path / "tritonserver"
    write_model(models, "identity", identity())
    program.symlink_to(BINARY)
    arguments = [one.replace("{models}", str(models)) for one in MANIFESTS[manifest]]
    ports = {}
    for service, port in PORTS.items():
        given = [one for one in arguments if one.startswith(f"--{service}-port=")]
        ports[service] = int(given[0].split("=")[1]) if given else port
        if not given and not free(port):
            # A server of somebody else: a port of our own goes before the unmodified flags.
            ports[service] = free_port()
            arguments.insert(0, f"--{service}-port={ports[service]}")
        elif given and not free(ports[service]):
            pytest.skip(f"port {ports[service]} is taken on this machine")
    log = tmp_path / "log.txt"
    with log.open("w") as out:
        server = subprocess.Popen([program, *arguments], stdout=out, stderr=subprocess.STDOUT)
    try:
        client = httpclient.InferenceServerClient(f"127.0.0.1:{ports['http']}")
        end = time.monotonic() + 60
        while True:
            assert server.poll() is None and time.monotonic() < end, log.read_text()
            try:
                if client.is_server_ready():
                    break
            except OSError:
                time.sleep(0.02)
        assert client.is_model_ready("identity") == ("--model-control-mode=explicit" not in arguments)
        for service in ("grpc", "metrics"):
            socket.create_connection(("127.0.0.1", ports[service])).close()
        client.close()
    finally:
        os.kill(server.pid, signal.SIGTERM)
    assert server.wait(20) == 0, log.read_text()
