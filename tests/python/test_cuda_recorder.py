"""The backend `tensorrtllm` in a real server, on a GPU that records in the place of one that computes
(`backends/tensorrtllm/tests/recorded/recorder.c`): what becomes of checkpoints, of memory, of choices that are kept, and
of a GPU that is lost. Its tokens are all 0."""
import concurrent.futures
import http.client
import json
import struct
import subprocess
import time

import pytest

from test_llm_metrics import Numbers, until
from trireme_server import BINARY, ROOT, Server

SOURCE = ROOT / "backends/tensorrtllm/tests/recorded/recorder.c"
SHAPE = {"architectures": ["LlamaForCausalLM"], "vocab_size": 320, "hidden_size": 128, "intermediate_size": 256,
         "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64,
         "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 1e4, "bos_token_id": 1, "eos_token_id": 2,
         "tie_word_embeddings": True}
TOKENIZER = {"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": {"ab": 0, "cd": 1}, "unk_token": "cd"}}
OUT_OF_MEMORY, LAUNCH_FAILED = 2, 719


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """The folder for LD_LIBRARY_PATH: CUDA's libraries by name, all of them the recorder."""
    folder = tmp_path_factory.mktemp("recorder")
    subprocess.run(["cc", "-std=gnu11", "-O1", "-shared", "-fPIC", "-Wl,-soname,libcuda.so", "-o", folder / "libcuda.so", SOURCE],
                   check=True)
    for name in ("libcublasLt.so", "libnvrtc.so"):
        subprocess.run(["cc", "-shared", "-o", folder / name, f"-Wl,-soname,{name}", "-Wl,--no-as-needed", folder / "libcuda.so"],
                       check=True)
    return folder


def tensors(shape):
    hidden, inter, head = shape["hidden_size"], shape["intermediate_size"], shape["head_dim"]
    q, kv = shape["num_attention_heads"] * head, shape["num_key_value_heads"] * head
    found = {"model.embed_tokens.weight": [shape["vocab_size"], hidden], "model.norm.weight": [hidden]}
    for layer in range(shape["num_hidden_layers"]):
        name = f"model.layers.{layer}."
        found |= {name + "input_layernorm.weight": [hidden], name + "post_attention_layernorm.weight": [hidden],
                  name + "self_attn.q_proj.weight": [q, hidden], name + "self_attn.k_proj.weight": [kv, hidden],
                  name + "self_attn.v_proj.weight": [kv, hidden], name + "self_attn.o_proj.weight": [hidden, q],
                  name + "mlp.gate_proj.weight": [inter, hidden], name + "mlp.up_proj.weight": [inter, hidden],
                  name + "mlp.down_proj.weight": [hidden, inter]}
    return found


def write_checkpoint(folder, shape=SHAPE, weights=None):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(shape))
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    header, at = {}, 0
    for name, dims in (tensors(shape) if weights is None else weights).items():
        size = 2
        for dim in dims:
            size *= dim
        header[name] = {"dtype": "BF16", "shape": dims, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))


def model(root, name, shape=SHAPE, weights=None, parameters=None, extra=""):
    if weights is None:
        parameters = {"load_format": "dummy", **(parameters or {})}
        (root / name / "1").mkdir(parents=True)
        (root / name / "1/config.json").write_text(json.dumps(shape))
    else:
        write_checkpoint(root / name / "1", shape, weights)
    text = 'backend: "tensorrtllm"\nmax_batch_size: 8\n' if "max_batch_size" not in extra else 'backend: "tensorrtllm"\n'
    for key, value in (parameters or {}).items():
        text += f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
    (root / name / "config.pbtxt").write_text(text + extra)


def index(server):
    return {line["name"]: line for line in json.loads(server.raw("POST", "/v2/repository/index")[2])}


def start(driver, repository, *flags, **env):
    env = {"LD_LIBRARY_PATH": str(driver), **{name: str(value) for name, value in env.items()}}
    cache = [] if any("tuning_cache" in flag for flag in flags) else ["--backend-config=tensorrtllm,tuning_cache=off"]
    cache += ["--backend-config=tensorrtllm,kernel_cache=off"]
    return Server(repository, "--exit-on-error=false", *cache, *flags, env=env)


def generate(server, name="m", tokens=3):
    body = json.dumps({"text_input": "ab", "max_tokens": tokens}).encode()
    return server.raw("POST", f"/v2/models/{name}/generate", body)


def test_choices_are_kept_from_one_start_to_the_next(driver, tmp_path):
    repository, cache = tmp_path / "models", tmp_path / "cache"
    model(repository, "m", weights=tensors(SHAPE))
    setting = f"--backend-config=tensorrtllm,tuning_cache={cache}"
    with start(driver, repository, setting) as server:
        assert generate(server)[0] == 200, server.output()
        text = server.output()
        assert "model 'm' on GPU 0, Recorder: weights " in text and " choices of kernels were timed and are kept in " in text
    [table] = cache.iterdir()
    with start(driver, repository, setting) as server:
        assert generate(server)[0] == 200
        text = server.output()
        assert f"the choices of kernels are those of {table}" in text and "were timed" not in text, text
    # In a plan, without a folder.
    plan = tmp_path / "plan/p/1/model.plan"
    plan.parent.mkdir(parents=True)
    run = subprocess.run([BINARY, "plan", repository / "m/1", "-o", plan, "--tuning", table], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    (tmp_path / "plan/p/config.pbtxt").write_text((repository / "m/config.pbtxt").read_text())
    with start(driver, tmp_path / "plan") as server:
        assert generate(server, "p")[0] == 200, server.output()
        assert "the choices of kernels are those of the plan" in server.output()
    # Damaged: one line, and timed anew.
    table.write_bytes(table.read_bytes()[:-9] + b"otherwise")
    run = subprocess.run([BINARY, "plan", repository / "m/1", "-o", plan, "--tuning", table], capture_output=True, text=True, timeout=60)
    assert run.returncode == 2 and "is damaged: its checksum does not match" in run.stderr, run.stderr
    with start(driver, repository, setting) as server:
        text = server.output()
        assert text.count("is passed over: it is damaged") == 1 and "were timed and are kept in" in text
        assert index(server)["m"]["state"] == "READY"


def test_what_cannot_run_is_refused_by_name_and_the_rest_serves(driver, tmp_path):
    all_of = tensors(SHAPE)
    gone, flat = dict(all_of), dict(all_of)
    del gone["model.layers.1.mlp.up_proj.weight"]
    flat["model.layers.0.self_attn.k_proj.weight"] = [32, 128]
    refused = {
        "missing": (dict(weights=gone), "model.layers.1.mlp.up_proj.weight"),
        "flat": (dict(weights=flat), "model.layers.0.self_attn.k_proj.weight"),
        "heads": (dict(shape={**SHAPE, "head_dim": 48}), "heads of 48 (there are kernels for [64, 80, 96, 128, 256])"),
        "odd": (dict(shape={**SHAPE, "hidden_size": 72}), "'hidden_size' is 72, it must be a multiple of 32"),
        "biases": (dict(shape={**SHAPE, "mlp_bias": True}), "biases of the attention's output and of the MLP have no kernel"),
        "rows": (dict(parameters={"max_num_tokens": 100000}), "100000 rows of a step (max_num_tokens): there must be 1 to 65535"),
        "sequences": (dict(extra="max_batch_size: 2000000000\n"), "2000000000 sequences at a time (max_batch_size)"),
        "group": (dict(extra='instance_group [ { kind: KIND_GPU gpus: [ 5 ] } ]\n'), "lists GPU 5, this machine has 1"),
        "cpu": (dict(extra='instance_group [ { kind: KIND_CPU } ]\n'), "runs on GPUs only"),
    }
    for name, (made, _) in refused.items():
        model(tmp_path, name, **made)
    model(tmp_path, "m")
    model(tmp_path, "more", weights={**all_of, "model.layers.0.self_attn.rotary_emb.inv_freq": [32]})
    with start(driver, tmp_path) as server:
        lines = index(server)
        for name, (_, said) in refused.items():
            line = lines[name]
            assert line["state"] == "UNAVAILABLE" and said in line["reason"] and "\n" not in line["reason"], line
        # A tensor that no layer has is no harm.
        for name in ("m", "more"):
            assert generate(server, name)[0] == 200, lines[name]


def test_memory_is_planned_before_any_is_taken(driver, tmp_path):
    model(tmp_path, "m")
    with start(driver, tmp_path, RECORDER_MEMORY_MB=560) as server:
        reason = index(server)["m"]["reason"]
        assert "not enough memory on the GPU: nothing is left for keys and values: weights " in reason, reason
        assert " MB free" in reason, reason
    # Another process takes it in between.
    explicit = ("--model-control-mode=explicit", "--load-model=m")
    with start(driver, tmp_path, *explicit, RECORDER_FAIL=f"cuMemAlloc_v2:3:{OUT_OF_MEMORY}:0") as server:
        reason = index(server)["m"]["reason"]
        assert "not enough memory on the GPU: " in reason and "MB wanted" in reason, reason
        # It was the moment: the next load has it.
        assert server.raw("POST", "/v2/repository/models/m/load", b"{}")[0] == 200
        assert generate(server)[0] == 200


def test_an_older_driver_is_named(driver, tmp_path):
    model(tmp_path, "m")
    with start(driver, tmp_path, RECORDER_DRIVER=12040) as server:
        assert "is for CUDA 12.4, CUDA 13.0 is needed: install driver 580 or later" in index(server)["m"]["reason"]


@pytest.mark.parametrize("call", ["cuGraphLaunch", "cuEventSynchronize", "cuMemcpyHtoDAsync_v2"])
def test_a_gpu_that_is_lost_in_a_step_ends_the_server_in_order(driver, tmp_path, call):
    repository, mark = tmp_path / "models", tmp_path / "now"
    model(repository, "m")
    with start(driver, repository, "--drain-delay=1", RECORDER_FAIL=f"{call}:0:{LAUNCH_FAILED}:1",
               RECORDER_FAIL_FILE=mark) as server:
        assert generate(server)[0] == 200
        mark.touch()
        end = time.monotonic() + 30
        status = 200
        while status == 200 and time.monotonic() < end:
            status, _, body = generate(server, tokens=100)
        assert status == 503 and "unspecified launch failure" in json.loads(body)["error"], (status, body)
        assert server.process.wait(60) == 70, server.output()
        assert server.output().count("a device is lost to this process") == 1


def test_streams_that_are_left_hold_nothing(driver, tmp_path):
    """More of them than there are slots, each left after another number of tokens."""
    model(tmp_path, "m", shape={**SHAPE, "max_position_embeddings": 65536})
    body = json.dumps({"model": "m", "prompt": [3, 4, 5], "max_tokens": 60000, "ignore_eos": True, "temperature": 0, "stream": True})

    def leave(server, after):
        connection = http.client.HTTPConnection("127.0.0.1", server.http, timeout=30)
        connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200
        for _ in range(after):
            assert answer.readline()
        connection.close()

    with start(driver, tmp_path) as server:
        before = Numbers(server, "m")
        assert before["nv_trt_llm_runtime_memory_metrics/gpu"] > 0
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            for left in [pool.submit(leave, server, number % 20) for number in range(200)]:
                left.result()
        gone = until(server, "m", lambda now: now["trireme_llm_running"] == 0 and now["trireme_llm_waiting"] == 0)
        assert gone["trireme_llm_kv_blocks_used"] == 0
        ended = {how: gone[f"trireme_llm_requests_total/{how}"] for how in ("answered", "cancelled", "failed")}
        assert ended["failed"] == 0 and ended["answered"] + ended["cancelled"] == 200 and ended["cancelled"] > 150, ended
        assert generate(server)[0] == 200
        assert Numbers(server, "m")["nv_trt_llm_runtime_memory_metrics/gpu"] == before["nv_trt_llm_runtime_memory_metrics/gpu"]


def test_a_graph_without_memory_is_no_error(driver, tmp_path):
    model(tmp_path, "m")
    with start(driver, tmp_path, RECORDER_FAIL=f"cuGraphInstantiateWithFlags:30:{OUT_OF_MEMORY}:0") as server:
        assert generate(server)[0] == 200, index(server)
