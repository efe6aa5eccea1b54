"""A real tritonserver 2.51, with models that behave as ours: what the same traffic does to both can be compared."""
import os
import subprocess

from trireme_server import BACKENDS, ROOT, Server

FOLDER = ROOT / "target" / "peers" / "tritonserver"
HOME = FOLDER / "tritonserver"
# The names under which both servers have what a model does: (our backend, its parameters, the mode of the peer's backend).
KINDS = {
    "identity": ("identity", {}, "identity"),
    "add_sub": ("add_sub", {}, "addsub"),
    "repeat": ("repeat", {}, "elements"),
    "fail": ("hostile", {"fault": "fail"}, "fail"),
}


def install():
    """Downloads the peer (about 60 MB) unless it is there, and builds its backend. Returns its program."""
    subprocess.run([ROOT / "tests" / "peers" / "tritonserver" / "install.sh", FOLDER], check=True)
    return HOME / "bin" / "tritonserver"


def ours(repository, *flags):
    return Server(repository, *flags, backends=BACKENDS)


def theirs(repository, *flags):
    # Its pools and GPUs are none of our business, and its caches lie beside it.
    own = ["--pinned-memory-pool-byte-size=0", "--cache-directory", str(HOME / "caches"), *flags]
    return Server(repository, *own, argv0=HOME / "bin" / "tritonserver", backends=HOME / "backends")


def behaviour(kind, server, delay_ms=0):
    """The lines of a configuration that make a model of this server do what `kind` says."""
    backend, parameters, mode = KINDS[kind]
    if server == "theirs":
        backend, parameters = "bench", {"mode": mode}
        if delay_ms:
            parameters["exec_delay_us"] = delay_ms * 1000
    elif delay_ms:
        parameters = {**parameters, "execute_delay_ms": delay_ms}
    text = f'backend: "{backend}"\n'
    for key, value in parameters.items():
        text += f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
    return text


def available():
    """Whether it can run here: it is built for Linux on x86-64."""
    return os.uname().sysname == "Linux" and os.uname().machine == "x86_64"
