import pathlib
import sys

import pytest

sys.path[:0] = [str(pathlib.Path(__file__).parent), str(pathlib.Path(__file__).parents[1] / "python")]

import cluster as slurm  # noqa: E402
from trireme_server import BACKENDS, BINARY, identity, write_model  # noqa: E402


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    lacking = slurm.missing()
    assert not lacking, f"no Slurm can be started here, missing: {lacking} (Debian: apt-get install slurm-wlm munge, as root)"
    cluster = slurm.Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """One model that answers at once and one that takes a second and a half."""
    repository = tmp_path_factory.mktemp("models")
    write_model(repository, "identity", identity())
    slow = identity("slow", batch=0, extra="instance_group [{ count: 4 }]\n", parameters={"execute_delay_ms": 1500})
    write_model(repository, "slow", slow)
    return repository


@pytest.fixture(scope="session")
def program():
    """What the scripts find in their environment, and flags that the tests' backends need."""
    return {"TRIREME": str(BINARY)}, ["--backend-directory", str(BACKENDS)]
