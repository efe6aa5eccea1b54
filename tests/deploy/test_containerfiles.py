"""The Containerfiles by hadolint, and the bill of what they copy."""
import re
import subprocess

import pytest
import tools

FILES = ["cpu", "cuda"]


def lint(text):
    done = subprocess.run(["hadolint", "--failure-threshold", "warning", "-"], input=text, capture_output=True, text=True, timeout=60,
                          env={"PATH": str(tools.PROGRAMS)})
    return done.stdout + done.stderr if done.returncode else ""


@pytest.mark.parametrize("name", FILES)
def test_a_containerfile_is_clean(name):
    text = (tools.ROOT / f"deploy/docker/{name}.Containerfile").read_text()
    assert lint(text) == ""
    # A planted fault, and one of ours: the same contract in both.
    assert "DL3000" in lint(text.replace("WORKDIR /opt/trireme", "WORKDIR opt/trireme"))
    for line in ("USER 1000:1000", "EXPOSE 8000 8001 8002", "STOPSIGNAL SIGTERM", 'ENTRYPOINT ["/opt/trireme/bin/trireme"]',
                 'CMD ["serve", "--model-repository=/models"]'):
        assert line in text.splitlines()


def test_nothing_floats():
    """No base by a tag: of the CPU image there is none, the CUDA image's is an argument with a digest."""
    for name in FILES:
        bases = re.findall(r"^FROM (\S+)", (tools.ROOT / f"deploy/docker/{name}.Containerfile").read_text(), re.M)
        assert bases in (["scratch"], ["${BASE}"])
