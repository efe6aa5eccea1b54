"""The scripts of deploy/slurm on a real Slurm: servers that start, answer, drain, and come back."""
import json
import os
import pathlib
import signal
import subprocess
import threading
import time
import urllib.request

import pytest
from trireme_server import ROOT

SCRIPTS = ROOT / "deploy" / "slurm"


def endpoint(cluster, folder, file, seconds=60):
    """The HTTP address of a server, as a client of the documentation gets it."""
    return cluster.output(SCRIPTS / "wait-for-endpoint.sh", file, seconds, cwd=folder)


def ask(url, model="identity", value=1.0):
    shape = [1, 2] if model == "identity" else [2]
    inputs = [{"name": "INPUT0", "shape": shape, "datatype": "FP32", "data": [value, value + 1]}]
    with urllib.request.urlopen(f"{url}/v2/models/{model}/infer", json.dumps({"inputs": inputs}).encode(), timeout=60) as answer:
        return json.load(answer)["outputs"][0]["data"]


def answers(url):
    try:
        return ask(url) == [1.0, 2.0]
    except OSError:
        return False


def servers_of(job):
    """The environments of the processes of our program in a job, by their ids."""
    found = {}
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            environment = dict(e.split("=", 1) for e in (process / "environ").read_text().split("\0") if "=" in e)
            if environment.get("SLURM_JOB_ID") == job and (process / "comm").read_text().strip() == "trireme":
                found[int(process.name)] = environment
        except (OSError, UnicodeDecodeError):
            continue
    assert found, f"job {job} has no server"
    return found


def gpus_of(job):
    """CUDA_VISIBLE_DEVICES of the server of a job, from the process itself."""
    (environment,) = servers_of(job).values()
    return environment.get("CUDA_VISIBLE_DEVICES", "")


def process_of(job):
    (process,) = servers_of(job)
    return process


class Running:
    """Requests of a slow model that are under way; `answers` tells what came of them."""

    def __init__(self, url, count=4):
        self.answers = []
        self.threads = [threading.Thread(target=self.one, args=(url, float(i))) for i in range(count)]
        for thread in self.threads:
            thread.start()
        # Long enough to have arrived, and well before the first answer.
        time.sleep(0.6)

    def one(self, url, value):
        try:
            self.answers.append(ask(url, "slow", value) == [value, value + 1])
        except OSError as error:
            self.answers.append(str(error))

    def all_answered(self):
        for thread in self.threads:
            thread.join(60)
        return self.answers == [True] * len(self.threads)


@pytest.fixture(scope="module")
def limited(cluster, models, program, tmp_path_factory):
    """A server whose time is up after a minute; TERM comes up to a minute before. Runs beside the other tests."""
    folder = tmp_path_factory.mktemp("limited")
    environment, flags = program
    job = cluster.submit("--time=00:01:00", "--signal=B:TERM@50", "--gres=gpu:1", "--nodelist=n1", SCRIPTS / "server.sbatch", models, *flags,
                         cwd=folder, env=environment)
    return job, folder


def test_a_server_answers_with_the_devices_that_were_granted(cluster, models, program, tmp_path, limited):
    environment, flags = program
    job = cluster.submit("--gres=gpu:1", "--nodelist=n2", SCRIPTS / "server.sbatch", models, *flags, cwd=tmp_path, env=environment)
    url = endpoint(cluster, tmp_path, f"trireme-{job}.endpoint")
    assert ask(url) == [1.0, 2.0]
    both = cluster.submit("--gres=gpu:2", SCRIPTS / "server.sbatch", models, *flags, cwd=tmp_path, env=environment)
    assert gpus_of(job) == "0"
    cluster.output("scancel", "--signal=TERM", "--batch", job)
    cluster.wait_state(job, "COMPLETED", 30)
    assert not (tmp_path / f"trireme-{job}.endpoint").exists()
    # The node has both of its devices again.
    endpoint(cluster, tmp_path, f"trireme-{both}.endpoint")
    assert gpus_of(both) == "0,1"
    cluster.output("scancel", "--signal=TERM", "--batch", both)
    cluster.wait_state(both, "COMPLETED", 30)


@pytest.mark.parametrize("how", [["--signal=TERM", "--batch"], []], ids=["batch", "plain"])
def test_cancelling_drains(cluster, models, program, tmp_path, how):
    environment, flags = program
    job = cluster.submit(SCRIPTS / "server.sbatch", models, *flags, cwd=tmp_path, env=environment)
    url = endpoint(cluster, tmp_path, f"trireme-{job}.endpoint")
    running = Running(url)
    cluster.output("scancel", *how, job)
    assert running.all_answered(), running.answers
    cluster.wait_state(job, "COMPLETED" if how else "CANCELLED", 30)


def test_an_array_of_servers(cluster, models, program, tmp_path):
    environment, flags = program
    job = cluster.submit("--array=0-1", "--gres=gpu:1", SCRIPTS / "array.sbatch", models, *flags, cwd=tmp_path, env=environment)
    urls = [endpoint(cluster, tmp_path, f"trireme-{job}/{task}.endpoint") for task in (0, 1)]
    assert len(set(urls)) == 2
    assert [ask(url, value=5.0) for url in urls] == [[5.0, 6.0]] * 2
    cluster.output("scancel", "--signal=TERM", "--batch", job)
    cluster.wait(lambda: not list((tmp_path / f"trireme-{job}").iterdir()), 30, "no server is left")


def test_a_server_at_the_terminal(cluster, models, program, tmp_path):
    environment, flags = program
    command = [SCRIPTS / "interactive.sh", "--gres=gpu:1", "--", models, *flags]
    server = subprocess.Popen(list(map(str, command)), cwd=tmp_path, env={**cluster.environment, **environment},
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        url = endpoint(cluster, tmp_path, "trireme.endpoint")
        running = Running(url)
        server.send_signal(signal.SIGINT)
        assert running.all_answered(), running.answers
        out, _ = server.communicate(timeout=60)
    finally:
        server.kill()
    assert "READY" in out and "http://" in out


def test_a_node_that_fails(cluster, models, program, tmp_path):
    environment, flags = program
    # Not the node of the server whose time is measured beside this test.
    job = cluster.submit("--exclude=n1", SCRIPTS / "server.sbatch", models, *flags, cwd=tmp_path, env=environment)
    file = f"trireme-{job}.endpoint"
    first = endpoint(cluster, tmp_path, file)
    node = cluster.job(job)["NodeList"]
    assert node == "n2"
    os.unlink(tmp_path / file)
    cluster.stop_node(node)
    cluster.output("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    cluster.wait(lambda: cluster.job(job)["Restarts"] == "1", 30, "the job is requeued")
    # Slurm waits before it starts a job again; the time is its own. Now the other node may have it.
    cluster.output("scontrol", "update", f"jobid={job}", "ExcNodeList=", "StartTime=now")
    again = endpoint(cluster, tmp_path, file, 90)
    assert ask(again) == [1.0, 2.0] and again != first
    assert cluster.job(job)["NodeList"] == "n1"
    # The node comes back: what still ran there is ended, and leaves the file of its successor alone.
    cluster.start_node(node)
    # By itself, when its daemon registers (ReturnToService).
    cluster.wait(lambda: cluster.output("sinfo", "-h", "-n", node, "-o", "%t") in ("idle", "mix", "alloc"), 60, "the node is back")
    cluster.wait(lambda: not answers(first), 60, "the server of the lost node has ended")
    assert endpoint(cluster, tmp_path, file) == again and answers(again)
    cluster.output("scancel", "--signal=TERM", "--batch", job)
    cluster.wait_state(job, "COMPLETED", 30)


LINES = 3000


@pytest.fixture
def lines(tmp_path):
    """A file of sentences for MiniLM."""
    calls = [{"custom_id": f"s{n}", "method": "POST", "url": "/v1/embeddings", "body": {"model": "minilm", "input": f"Sentence {n}"}}
             for n in range(LINES)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(call) + "\n" for call in calls))
    return [tmp_path / "in.jsonl", tmp_path / "out.jsonl", f"--model-repository={ROOT / 'model_repository'}", "--load-model=minilm"]


def answered(folder):
    out = folder / "out.jsonl"
    return out.read_bytes().count(b"\n") if out.exists() else 0


def each_line_once(folder):
    answers = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    return [a["custom_id"] for a in answers] == [f"s{n}" for n in range(LINES)] and {a["response"]["status_code"] for a in answers} == {200}


def half_way(cluster, folder):
    cluster.wait(lambda: answered(folder) > LINES // 10, 60, "the batch is on its way", lambda: str([*folder.iterdir()]))
    assert answered(folder) < LINES


def test_a_batch_that_is_killed_and_requeued(cluster, program, lines, tmp_path):
    environment, flags = program
    job = cluster.submit("--gres=gpu:1", "--nodelist=n2", SCRIPTS / "batch.sbatch", *lines, *flags, cwd=tmp_path, env=environment)
    half_way(cluster, tmp_path)
    # Not the node of the server whose time is measured beside this test.
    node = "n2"
    os.kill(process_of(job), signal.SIGSTOP)
    before = answered(tmp_path)
    # The node is lost with all that ran there.
    cluster.stop_node(node)
    os.kill(process_of(job), signal.SIGKILL)
    cluster.output("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    cluster.wait(lambda: cluster.job(job)["Restarts"] == "1", 30, "the job is requeued")
    # It comes back as soon as its daemon does (ReturnToService).
    cluster.start_node(node)
    cluster.output("scontrol", "update", f"jobid={job}", "StartTime=now+3")
    cluster.wait_state(job, "COMPLETED", 90)
    assert each_line_once(tmp_path)
    # Nothing that was written before was done again.
    log = (tmp_path / f"trireme-batch-{job}.log").read_text()
    assert f"{before:,} are answered already" in log


def test_a_batch_whose_time_is_up_goes_on_by_itself(cluster, program, lines, tmp_path):
    """TERM, exit code 75, and `RequeueExit=75` of slurm.conf."""
    environment, flags = program
    job = cluster.submit(SCRIPTS / "batch.sbatch", *lines, *flags, cwd=tmp_path, env=environment)
    half_way(cluster, tmp_path)
    cluster.output("scancel", "--signal=TERM", "--batch", job)
    cluster.wait(lambda: cluster.job(job)["Restarts"] == "1", 60, "the job is requeued", lambda: str(cluster.job(job)))
    assert 0 < answered(tmp_path) < LINES
    # Not in the second in which it ended: Slurm takes the credential of that run for the one that it has just revoked.
    cluster.output("scontrol", "update", f"jobid={job}", "StartTime=now+3")
    cluster.wait_state(job, "COMPLETED", 90)
    assert each_line_once(tmp_path)
    assert "not complete: " in (tmp_path / f"trireme-batch-{job}.log").read_text()


def test_a_server_that_is_not_there_in_time(cluster, tmp_path):
    with pytest.raises(AssertionError, match="no server within 1 s"):
        endpoint(cluster, tmp_path, "none.endpoint", 1)


def test_the_time_is_up(cluster, limited):
    job, folder = limited
    cluster.wait_state(job, "COMPLETED", 90)
    log = (folder / f"trireme-{job}.log").read_text()
    assert "draining" in log and "drained" in log
    assert not (folder / f"trireme-{job}.endpoint").exists()
