"""The command lines of scripts and manifests that are not a chart: the server knows every flag that they give."""
import re

import pytest
import tools
import yaml


def of_script(text):
    """The flags of `serve` and its continuation lines."""
    commands = re.findall(r'\$\{TRIREME:-trireme\}" (?:serve|batch)((?:.*\\\n)*.*)', text)
    return {flag for command in commands for flag in re.findall(r"(?<![\w-])--[a-z0-9-]+(?==)", command)}


def of_manifest(text):
    containers = [c for d in yaml.safe_load_all(text) for c in d["spec"].get("containers", [])]
    return {arg.split("=")[0] for c in containers for arg in c["args"] if arg.startswith("--")}


SOURCES = {
    **{path: of_script for path in ["slurm/server.sbatch", "slurm/array.sbatch", "slurm/interactive.sh", "slurm/batch.sbatch"]},
    "kserve/cluster-serving-runtime.yaml": of_manifest,
}


@pytest.mark.parametrize("path", SOURCES)
def test_the_server_knows_every_flag(server_flags, batch_flags, path):
    flags = SOURCES[path]((tools.ROOT / "deploy" / path).read_text())
    assert len(flags) >= 3 and flags <= (batch_flags if "batch." in path else server_flags)


def test_a_planted_flag_is_found(server_flags):
    script = (tools.ROOT / "deploy/slurm/server.sbatch").read_text()
    assert of_script(script.replace("--http-port=0", "--http-prot=0")) - server_flags == {"--http-prot"}
