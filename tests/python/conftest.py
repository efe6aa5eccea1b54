import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from trireme_server import ROOT, Server, identity, io, write_model  # noqa: E402

SIMPLE = (
    'name: "simple"\nbackend: "add_sub"\nmax_batch_size: 8\n'
    + io("input", "INPUT0", "INT32", "16") + io("input", "INPUT1", "INT32", "16")
    + io("output", "OUTPUT0", "INT32", "16") + io("output", "OUTPUT1", "INT32", "16")
)
REPEAT = (
    'name: "repeat_int32"\nbackend: "repeat"\nmax_batch_size: 0\nmodel_transaction_policy { decoupled: true }\n'
    + io("input", "IN", "INT32", "-1") + io("input", "DELAY", "UINT32", "-1") + io("input", "WAIT", "UINT32", "1")
    + io("output", "OUT", "INT32", "1") + io("output", "IDX", "UINT32", "1")
)


@pytest.fixture(scope="session")
def small_repository(tmp_path_factory):
    """Models without weights, one of each kind."""
    repository = tmp_path_factory.mktemp("repository")
    write_model(repository, "simple", SIMPLE)
    write_model(repository, "repeat_int32", REPEAT)
    write_model(repository, "identity", identity())
    write_model(repository, "identity_bytes", identity("identity_bytes", "STRING", "-1", 8))
    write_model(repository, "identity_nobatch", identity("identity_nobatch", "FP32", "-1, -1", 0))
    for dtype in ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP64", "BF16"):
        write_model(repository, f"identity_{dtype.lower()}", identity(f"identity_{dtype.lower()}", dtype))
    write_model(repository, "slow", identity("slow", parameters={"execute_delay_ms": 300}))
    return repository


@pytest.fixture(scope="session")
def server(small_repository):
    with Server(small_repository, "--model-control-mode", "explicit", "--load-model", "*") as server:
        yield server
        server.alive()


@pytest.fixture(scope="session")
def full_server():
    """The repository that the README serves, with its weights."""
    with Server(ROOT / "model_repository") as server:
        yield server
        server.alive()
