"""`trireme batch`: every line gets its answer once and in order, whatever happens to the process meanwhile."""
import json
import os
import random
import resource
import signal
import subprocess
import time

import pytest
from trireme_server import BACKENDS, BINARY, ROOT, identity, write_model

FULL = "TRIREME_TEST_FULL" in os.environ
LINES, KILLS = (10_000, 20) if FULL else (1_200, 20)
MODELS = ROOT / "model_repository"
HOSTILE = (
    identity("m").replace('"identity"', '"hostile"', 1)
    + 'parameters { key: "fault" value { string_value: "openai" } }\n'
)


def line(custom_id, url="/v1/embeddings", **body):
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body})


def command(folder, *flags):
    return [BINARY, "batch", "--backend-directory", BACKENDS, "--input", folder / "in.jsonl", "--output", folder / "out.jsonl", *flags]


def run(folder, *flags, code=0, **options):
    done = subprocess.run(command(folder, *flags), capture_output=True, text=True, timeout=240, **options)
    assert done.returncode == code, done.stderr
    return done.stderr


def written(folder):
    return [json.loads(text) for text in (folder / "out.jsonl").read_text().splitlines()]


def give(folder, lines):
    (folder / "in.jsonl").write_text("".join(text + "\n" for text in lines))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    repository = tmp_path_factory.mktemp("repository")
    write_model(repository, "m", HOSTILE)
    return ["--model-repository", repository]


SENTENCES = ["The cat sleeps.", "A dog runs over the wet grass", "Nobody has seen the key since Tuesday", "Rain"]


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    """Many lines for MiniLM, and what a run that nobody disturbs makes of them."""
    folder = tmp_path_factory.mktemp("sentences")
    numbers = random.Random(5)
    give(folder, [line(f"s-{n}", model="minilm", input=f"{numbers.choice(SENTENCES)} {n}") for n in range(LINES)])
    run(folder, "--model-repository", MODELS, "--load-model", "minilm")
    return folder


def test_answers_stand_in_the_order_of_their_lines(hostile, tmp_path):
    numbers = random.Random(3)
    calls = [("slow", numbers.randrange(0, 60)) if n % 3 else ("echo", n) for n in range(400)]
    give(tmp_path, [line(f"id {n}", "/v1/completions", model="m", ask=ask, count=count) for n, (ask, count) in enumerate(calls)])
    said = run(tmp_path, *hostile, "--concurrency=64")
    answers = written(tmp_path)
    assert [answer["custom_id"] for answer in answers] == [f"id {n}" for n in range(400)]
    for n, ((ask, count), answer) in enumerate(zip(calls, answers)):
        assert answer["id"] == f"batch_req_{n + 1}" and answer["error"] is None
        response = answer["response"]
        assert (response["status_code"], response["request_id"]) == (200, f"batch-{n + 1}")
        if ask == "echo":
            assert response["body"]["body"] == {"model": "m", "ask": "echo", "count": count}
            assert response["body"]["endpoint"] == "completions" and response["body"]["id"] == f"batch-{n + 1}"
    assert "400 lines answered in" in said and "complete: " in said


def test_a_line_that_fails_is_told_in_its_place(hostile, tmp_path):
    give(tmp_path, [
        line("good", "/v1/completions", model="m", ask="echo"),
        line("bad", "/v1/chat/completions", model="m", ask="error"),
        "{no JSON",
        "",
        json.dumps({"custom_id": "get", "method": "GET", "url": "/v1/models", "body": {}}),
        line("unknown", "/v1/completions", model="nobody"),
        line("elsewhere", "/v1/audio/speech", model="m"),
        line("stream", "/v1/completions", model="m", ask="chunks", stream=True),
        line("lines", "/v1/completions", model="m", ask="lines"),
        line("silent", "/v1/completions", model="m", ask="nothing"),
    ])
    assert "9 lines answered (7 of them with an error" in run(tmp_path, *hostile)
    told = {}
    for answer in written(tmp_path):
        response = answer["response"]
        code = response["body"].get("error", {}).get("code") if response else answer["error"]["code"]
        told[answer["custom_id"]] = (response and response["status_code"], code)
    assert told == {
        "good": (200, None), "bad": (400, "unknown_role"), None: (None, "invalid_json_line"), "get": (None, "invalid_method"),
        "unknown": (404, "model_not_found"), "elsewhere": (404, "unknown_url"), "stream": (400, None), "lines": (200, None),
        "silent": (500, None),
    }


def test_killed_at_random_points_and_continued(sentences, tmp_path):
    """SIGKILL twenty times, anywhere; then the same command to its end."""
    whole = (sentences / "out.jsonl").read_bytes()
    (tmp_path / "in.jsonl").write_bytes((sentences / "in.jsonl").read_bytes())
    out, numbers, kept = tmp_path / "out.jsonl", random.Random(11), b""
    for kill in range(KILLS):
        # So far at least, before it is killed; some while the models load.
        target = numbers.randrange(len(whole) * kill // (KILLS + 1), len(whole) * (kill + 1) // (KILLS + 1)) if kill % 5 else 0
        process = subprocess.Popen(command(tmp_path, "--model-repository", MODELS, "--load-model=minilm"), stderr=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while not out.exists() or out.stat().st_size < target:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.002)
        process.kill()
        process.wait()
        # Nothing is written over again that was kept.
        left = out.read_bytes()
        assert left.startswith(kept)
        # Torn at any byte, as a machine that fails may leave it.
        torn = left[: max(0, len(left) - numbers.randrange(0, 3000))]
        out.write_bytes(torn)
        kept = torn[: torn.rfind(b"\n") + 1]
    assert "complete: " in run(tmp_path, "--model-repository", MODELS, "--load-model", "minilm")
    # What an undisturbed run writes, byte for byte.
    assert out.read_bytes() == whole


def test_a_complete_output_stays_as_it_is(sentences):
    before = (sentences / "out.jsonl").read_bytes()
    said = run(sentences, "--model-repository", MODELS, "--load-model", "minilm")
    assert f"{LINES:,} are answered already" in said and "0 lines answered" in said
    assert (sentences / "out.jsonl").read_bytes() == before


def test_a_signal_waits_for_what_runs(hostile, tmp_path):
    give(tmp_path, [line(f"{n}", "/v1/completions", model="m", ask="slow", count=400) for n in range(40)])
    process = subprocess.Popen(command(tmp_path, *hostile, "--concurrency=8"), stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "out.jsonl").exists() or not written(tmp_path):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    done = len(written(tmp_path))
    assert process.returncode == 75 and 8 < done < 40, said
    assert f"not complete: {done} of 40 lines" in said
    run(tmp_path, *hostile)
    assert [answer["custom_id"] for answer in written(tmp_path)] == [f"{n}" for n in range(40)]


def test_a_second_signal_and_a_call_that_never_ends(hostile, tmp_path):
    give(tmp_path, [line("a", "/v1/completions", model="m", ask="echo"), line("b", "/v1/completions", model="m", ask="wait")])
    for flags, signals, code in [(["--exit-timeout-secs=1"], 1, 75), (["--exit-timeout-secs=60"], 2, 4)]:
        process = subprocess.Popen(command(tmp_path, *hostile, *flags), stderr=subprocess.DEVNULL)
        while not (tmp_path / "out.jsonl").exists() or not written(tmp_path):
            time.sleep(0.01)
        # The first line may be there from before: until the second one runs.
        time.sleep(1)
        for _ in range(signals):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.7)
        assert process.wait(20) == code
        assert [answer["custom_id"] for answer in written(tmp_path)] == ["a"]


def test_a_full_disk_ends_the_run_and_the_next_one_goes_on(hostile, tmp_path):
    give(tmp_path, [line(f"{n}", "/v1/completions", model="m", ask="echo", text="x" * 1000) for n in range(100)])

    def small():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))

    said = run(tmp_path, *hostile, code=1, preexec_fn=small)
    assert "out.jsonl'; what is in it is kept, the same command goes on" in said
    run(tmp_path, *hostile)
    assert [answer["custom_id"] for answer in written(tmp_path)] == [f"{n}" for n in range(100)]


def test_one_process_writes(hostile, tmp_path):
    give(tmp_path, [line("a", "/v1/completions", model="m", ask="slow", count=1500)])
    first = subprocess.Popen(command(tmp_path, *hostile), stderr=subprocess.DEVNULL)
    while not (tmp_path / "out.jsonl").exists():
        time.sleep(0.01)
    time.sleep(0.2)
    assert "another process is writing" in run(tmp_path, *hostile, code=1)
    assert first.wait(20) == 0 and len(written(tmp_path)) == 1


def test_what_cannot_be_is_said_before_anything_is_written(hostile, tmp_path):
    give(tmp_path, [line("a", "/v1/completions", model="gpt", ask="echo")])
    said = run(tmp_path, *hostile, code=1)
    assert "The model 'gpt' does not exist" in said and "There is 'm'" in said and "--model-name" in said
    assert (tmp_path / "out.jsonl").read_bytes() == b""
    (tmp_path / "out.jsonl").write_text("something of mine\n")
    assert "line 1 is no answer of a batch" in run(tmp_path, *hostile, code=1)
    assert (tmp_path / "out.jsonl").read_text() == "something of mine\n"
    missing = tmp_path / "none"
    assert f"cannot read '{missing}/in.jsonl'" in run(missing, *hostile, code=1)
    run(tmp_path, *hostile, "--concurrency=0", code=2)


def test_a_model_without_room_is_asked_again(tmp_path):
    """Calls that a full queue refuses are not answered with that."""
    text = (MODELS / "minilm/config.pbtxt").read_text()
    text = text.replace("dynamic_batching { }", "dynamic_batching { default_queue_policy { max_queue_size: 2 } }")
    assert "max_queue_size" in text
    folder = write_model(tmp_path / "repository", "minilm", text.replace("max_batch_size: 64", "max_batch_size: 1"))
    (folder / "1").rmdir()
    (folder / "1").symlink_to(MODELS / "minilm/1")
    give(tmp_path, [line(f"{n}", model="minilm", input=SENTENCES[n % 4]) for n in range(40)])
    run(tmp_path, "--model-repository", tmp_path / "repository", "--concurrency=40")
    assert [answer["response"]["status_code"] for answer in written(tmp_path)] == [200] * 40


def test_a_checkpoint_writes(tmp_path):
    ask = [{"role": "user", "content": "What is the capital of France?"}]
    give(tmp_path, [line(f"{n}", "/v1/chat/completions", model="any", messages=ask, temperature=0, max_tokens=32) for n in range(12)])
    said = run(tmp_path, MODELS / "smollm2/1/model.gguf", "--model-name=any")
    answers = [answer["response"]["body"]["choices"][0]["message"]["content"] for answer in written(tmp_path)]
    assert answers == ["The capital of France is Paris."] * 12
    assert "generated tokens/s" in said
