"""podman with the storage of an image that was just built, and the options of a careful cluster."""
import contextlib
import os
import pathlib
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "python"))

from trireme_server import free_port  # noqa: E402

FOLDER = pathlib.Path(os.environ["TRIREME_IMAGE_FOLDER"])
IMAGE = os.environ["TRIREME_IMAGE"]
MODELS = pathlib.Path(os.environ["TRIREME_MODEL_REPOSITORY"])
HARDENED = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--memory=2g", "--cpus=2", "--pids-limit=256",
            "--shm-size=64m"]


def podman(*arguments, check=True, timeout=300):
    command = ["podman", "--root", FOLDER / "storage", "--runroot", FOLDER / "run", "--storage-driver", "vfs", *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=timeout,
                          env={**os.environ, "CONTAINERS_CONF": str(FOLDER / "containers.conf")})
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done.stdout.strip() if check else done


@contextlib.contextmanager
def container(*arguments, options=(), network="host", models=MODELS):
    name = podman("run", "--detach", f"--network={network}", *HARDENED, "--volume", f"{models}:/models:ro", *options, IMAGE, *arguments)
    try:
        yield name
    finally:
        podman("rm", "--force", "--time=0", name, check=False)


def wait_ready(port, logs, seconds=240):
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=2) as answer:
                if answer.status == 200:
                    return
        assert time.monotonic() < end, logs()
        time.sleep(0.1)


def ports():
    numbers = [free_port() for _ in range(3)]
    return numbers, [f"--{name}-port={number}" for name, number in zip(("http", "grpc", "metrics"), numbers)]
