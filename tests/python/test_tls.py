"""TLS of the gRPC port, with and without certificates of clients."""
import queue
import socket
import ssl
import subprocess

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from trireme_server import BACKENDS, BINARY, Server, identity, write_model


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    repository = tmp_path_factory.mktemp("tls")
    write_model(repository, "identity", identity())
    return repository


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two authorities; a server's and a client's certificate of the first, a client's of the second."""
    directory = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=directory)

    for authority in ("ca", "other"):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={authority}",
                "-keyout", f"{authority}.key", "-out", f"{authority}.crt")
    (directory / "san.txt").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
    for name, authority in (("server", "ca"), ("client", "ca"), ("stranger", "other")):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.crt", "-CAkey", f"{authority}.key",
                "-CAcreateserial", "-days", "2", "-extfile", "san.txt", "-out", f"{name}.crt")
    return directory


def flags(files, *more):
    return [f"--grpc-server-cert={files}/server.crt", f"--grpc-server-key={files}/server.key", *more]


def client(server, files=None, name=None, authority="ca"):
    options = {"root_certificates": f"{files}/{authority}.crt"} if files else {}
    if name:
        options.update(private_key=f"{files}/{name}.key", certificate_chain=f"{files}/{name}.crt")
    return grpcclient.InferenceServerClient(f"localhost:{server.grpc}", ssl=files is not None, **options)


def infer(client, array):
    tensor = grpcclient.InferInput("INPUT0", list(array.shape), "FP32")
    tensor.set_data_from_numpy(array)
    result = client.infer("identity", [tensor], client_timeout=30)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    client.async_stream_infer("identity", [tensor])
    result, error = answers.get(timeout=30)
    assert error is None
    client.stop_stream()


def test_encrypted(repository, files):
    array = np.random.default_rng(4).standard_normal((1, 1 << 20)).astype(np.float32)
    with Server(repository, *flags(files, "--grpc-use-ssl=true")) as server:
        with client(server, files) as one:
            infer(one, array)
        with client(server) as plain, pytest.raises(Exception):
            plain.is_server_live(client_timeout=5)
        with client(server, files, authority="other") as wary, pytest.raises(Exception):
            wary.is_server_live(client_timeout=5)
        # A client that says nothing, or not TLS, does not keep others out.
        with socket.create_connection(("127.0.0.1", server.grpc)) as silent, socket.create_connection(("127.0.0.1", server.grpc)) as noise:
            noise.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
            with client(server, files) as one:
                assert one.is_server_ready()
            del silent
        for version, works in ((ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True)):
            context = ssl.create_default_context(cafile=f"{files}/ca.crt")
            context.minimum_version = context.maximum_version = version
            context.set_alpn_protocols(["h2"])
            with socket.create_connection(("127.0.0.1", server.grpc)) as raw:
                with context.wrap_socket(raw, server_hostname="localhost") as wrapped:
                    assert works and wrapped.selected_alpn_protocol() == "h2"
        assert server.stop() == 0


def test_clients_must_have_a_certificate(repository, files):
    with Server(repository, *flags(files, "--grpc-use-ssl-mutual=true", f"--grpc-root-cert={files}/ca.crt")) as server:
        with client(server, files, "client") as one:
            infer(one, np.ones((1, 4), np.float32))
        for name in (None, "stranger"):
            with client(server, files, name) as refused, pytest.raises(Exception):
                refused.is_server_live(client_timeout=5)
        server.alive()


@pytest.mark.parametrize("given, says", [
    (["--grpc-use-ssl=true"], "--grpc-use-ssl needs --grpc-server-cert"),
    (["--grpc-use-ssl=true", "--grpc-server-cert={}/server.crt"], "--grpc-use-ssl needs --grpc-server-key"),
    (["--grpc-use-ssl=true", "--grpc-server-cert={}/server.key", "--grpc-server-key={}/server.key"], "server.key' holds no certificate"),
    (["--grpc-use-ssl=true", "--grpc-server-cert={}/server.crt", "--grpc-server-key={}/nowhere"], "nowhere' holds no private key"),
    (["--grpc-use-ssl=true", "--grpc-server-cert={}/server.crt", "--grpc-server-key={}/client.key"], "cannot be used"),
    (["--grpc-use-ssl-mutual=true", "--grpc-server-cert={}/server.crt", "--grpc-server-key={}/server.key"], "needs --grpc-root-cert"),
])
def test_certificates_that_are_none(repository, files, given, says):
    command = [str(BINARY), "serve", "--model-repository", str(repository), "--backend-directory", str(BACKENDS)]
    command += [flag.format(files) for flag in given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and says in done.stderr, done.stderr
