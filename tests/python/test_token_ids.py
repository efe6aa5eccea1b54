"""Models of token ids with TensorRT-LLM's tensors: the backend `tensorrtllm` on the CPU by fallback."""

import json
import os
import queue
import subprocess

import numpy as np
import openai
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException

from trireme_server import BACKENDS, BINARY, ROOT, Server, io, write_model

GGUF = ROOT / "model_repository" / "smollm2" / "1" / "model.gguf"
FALLBACK = "--backend-fallback=tensorrtllm=cpu"

# "The quick brown fox" and how SmolLM2 goes on.
FOX = [504, 2365, 6354, 16438]

PLAIN = (
    'name: "model_name"\nbackend: "tensorrtllm"\nmax_batch_size: 64\n'
    + io("input", "input_ids", "INT32", "-1") + io("output", "output_ids", "INT32", "-1")
)


def optional(name, dtype, dims="1", extra="reshape: { shape: [ ] }"):
    return io("input", name, dtype, dims, f"optional: true {extra}")


# The names, types and shapes of upstream's configuration.
FULL = (
    'name: "tensorrt_llm"\nbackend: "tensorrtllm"\nmax_batch_size: 4\nmodel_transaction_policy { decoupled: true }\n'
    'dynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 0 }\n'
    + io("input", "input_ids", "INT32", "-1", "allow_ragged_batch: true optional: true")
    + "".join(optional(name, "INT32") for name in (
        "input_lengths", "request_output_len", "num_return_sequences", "end_id", "pad_id", "beam_width", "runtime_top_k",
        "min_tokens"))
    + "".join(optional(name, "FP32") for name in (
        "temperature", "runtime_top_p", "len_penalty", "repetition_penalty", "presence_penalty", "frequency_penalty"))
    + "".join(optional(name, "BOOL") for name in (
        "streaming", "stop", "return_log_probs", "exclude_input_in_output", "return_context_logits", "return_perf_metrics"))
    + optional("seed", "UINT64")
    + optional("stop_words_list", "INT32", "2, -1", "allow_ragged_batch: true")
    + optional("lora_weights", "FP16", "-1, -1", "allow_ragged_batch: true")
    + io("output", "output_ids", "INT32", "-1, -1") + io("output", "sequence_length", "INT32", "-1")
    + io("output", "cum_log_probs", "FP32", "-1") + io("output", "output_log_probs", "FP32", "-1, -1")
    + io("output", "batch_index", "INT32", "1") + io("output", "sequence_index", "INT32", "1")
    + io("output", "context_logits", "FP32", "-1, -1")
    + 'instance_group [ { count: 1 kind: KIND_CPU } ]\n'
    + "".join(f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n' for key, value in (
        ("gpt_model_type", "inflight_fused_batching"), ("batch_scheduler_policy", "max_utilization"),
        ("kv_cache_free_gpu_mem_fraction", "0.9"), ("max_tokens_in_paged_kv_cache", "16384"), ("max_beam_width", "1")))
)


def put(repository, config, name, versions=(1,)):
    directory = write_model(repository, name, config, versions)
    for version in versions:
        os.symlink(GGUF, directory / str(version) / "model.gguf")
    return directory


@pytest.fixture(scope="module")
def server(tmp_path_factory, full_server):
    repository = tmp_path_factory.mktemp("repository")
    put(repository, PLAIN + "version_policy { all {} }\n", "model_name", (1, 2))
    put(repository, FULL, "tensorrt_llm")
    with Server(repository, FALLBACK) as server:
        yield server
        server.alive()


def tensor(module, name, values, dtype=np.int32):
    values = np.array(values, dtype)
    kind = {np.int32: "INT32", np.float32: "FP32", np.bool_: "BOOL", np.uint64: "UINT64"}[dtype]
    made = module.InferInput(name, values.shape, kind)
    made.set_data_from_numpy(values)
    return made


@pytest.mark.parametrize("module", [httpclient, grpcclient])
def test_the_plain_repository_answers_on_the_cpu_in_both_versions(server, module):
    port = server.http if module is httpclient else server.grpc
    with module.InferenceServerClient(f"127.0.0.1:{port}") as client:
        for version in ("", "1", "2"):
            assert client.is_model_ready("model_name", version)
        ids = {}
        for version in ("1", "2"):
            answer = client.infer("model_name", [tensor(module, "input_ids", [FOX, FOX])], version)
            out = answer.as_numpy("output_ids")
            assert out.dtype == np.int32 and out.shape[0] == 2 and out.shape[1] > 10
            assert (out[0] == out[1]).all() and list(out[0][:4]) == FOX
            ids[version] = out
        assert (ids["1"] == ids["2"]).all()
        with pytest.raises(InferenceServerException, match="token id 99999999 is outside the vocabulary of 49152"):
            client.infer("model_name", [tensor(module, "input_ids", [[99999999]])])
        with pytest.raises(InferenceServerException, match="no tokens"):
            client.infer("model_name", [tensor(module, "input_ids", np.zeros((1, 0)))])


# The repository as a user of TensorRT-LLM has it: nothing but this text and plans.
PLANS = """
name: "NAME"
backend: "tensorrtllm"
max_batch_size: 64
input [ { name: "input_ids" data_type: TYPE_INT32 dims: [ -1 ] } ]
output [ { name: "output_ids" data_type: TYPE_INT32 dims: [ -1 ] } ]
version_policy { all {} }
"""


def test_plans_serve_in_all_versions_and_false_ones_are_refused_by_name(tmp_path, full_server):
    def model(name, versions):
        return write_model(tmp_path, name, PLANS.replace("NAME", name), versions)

    whole = model("model_name", (1, 2))
    os.symlink(GGUF, whole / "weights.gguf")
    for version, how in ((1, []), (2, ["--by-reference"])):
        plan = whole / str(version) / "model.plan"
        wrote = subprocess.run([BINARY, "plan", whole / "weights.gguf", "-o", plan, *how], text=True, capture_output=True, timeout=60)
        assert wrote.returncode == 0 and wrote.stdout == f"{plan}\n", wrote.stderr
    assert (whole / "2/model.plan").stat().st_size < 1 << 20 < (whole / "1/model.plan").stat().st_size
    bytes_of = (whole / "1/model.plan").read_bytes()
    false = {
        "cut": (bytes_of[: len(bytes_of) // 2], "is cut off"), "damaged": (bytes_of[:-1] + bytes([bytes_of[-1] ^ 1]), "is damaged"),
        "nvidia": (b"ftrt" + bytes(5000), "is an engine of NVIDIA TensorRT"), "random": (os.urandom(5000), "is no plan of Trireme"),
        "empty": (b"", "model.plan"),
    }
    for name, (content, _) in false.items():
        (model(name, (1,)) / "1" / "model.plan").write_bytes(content)
    with Server(tmp_path, FALLBACK, "--exit-on-error=false") as server:
        index = {(line["name"], line["version"]): line for line in json.loads(server.raw("POST", "/v2/repository/index")[2])}
        for name, (_, said) in false.items():
            line = index[name, "1"]
            assert line["state"] == "UNAVAILABLE" and said in line["reason"] and f"{name}/1/model.plan" in line["reason"], line
        answers = []
        for module, port in ((httpclient, server.http), (grpcclient, server.grpc)):
            with module.InferenceServerClient(f"127.0.0.1:{port}") as client:
                for version in ("1", "2"):
                    assert index["model_name", version]["state"] == "READY", index["model_name", version]
                    out = client.infer("model_name", [tensor(module, "input_ids", [FOX])], version).as_numpy("output_ids")
                    answers.append(out.tolist())
                for name in false:
                    assert not client.is_model_ready(name)
                    with pytest.raises(InferenceServerException):
                        client.infer(name, [tensor(module, "input_ids", [FOX])])
        assert len(answers[0][0]) > 10 and answers[0][0][:4] == FOX and all(answer == answers[0] for answer in answers)


def test_a_reader_of_the_help_may_leave():
    """`trireme plan --help | head`"""
    reader, writer = os.pipe()
    os.close(reader)
    asked = subprocess.run([BINARY, "plan", "--help"], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=20)
    os.close(writer)
    assert "panicked" not in asked.stderr and asked.returncode == 0


SHAPE = {
    "architectures": ["LlamaForCausalLM"], "vocab_size": 512, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "eos_token_id": 500,
}


def test_a_shape_without_weights_or_tokenizer_serves(tmp_path):
    (tmp_path / "shape").mkdir()
    (tmp_path / "shape/config.json").write_text(json.dumps(SHAPE))
    said = []
    for _ in range(2):
        with Server([], str(tmp_path / "shape"), "--load-format=dummy") as server:
            assert 'key: "load_format"' in server.output()
            with openai.OpenAI(base_url=server.url("/v1"), api_key="none") as client:
                answer = client.completions.create(
                    model="shape", prompt="abc", max_tokens=24, temperature=0, extra_body={"ignore_eos": True})
            assert answer.usage.prompt_tokens == 3 and answer.usage.completion_tokens == 24
            said.append(answer.choices[0].text)
    assert said[0] == said[1] and len(set(said[0])) > 2
    # Without a token that ends a text there are no forms, but there are answers.
    (tmp_path / "shape/config.json").write_text(json.dumps({**SHAPE, "eos_token_id": None}))
    with Server([], str(tmp_path / "shape"), "--load-format=dummy") as server:
        assert "no token ends a text" in server.output()
        with openai.OpenAI(base_url=server.url("/v1"), api_key="none") as client:
            assert client.completions.create(model="shape", prompt="abc", max_tokens=5).usage.completion_tokens == 5
    (tmp_path / "shape/config.json").write_text(json.dumps({**SHAPE, "num_hidden_layers": 1 << 30}))
    refused = subprocess.run([BINARY, "serve", tmp_path / "shape", "--load-format=dummy", "--print-config",
                              "--backend-directory", BACKENDS], text=True, timeout=60, capture_output=True)
    assert refused.returncode == 1 and ("larger than the memory" in refused.stderr or "more than 65536" in refused.stderr)
    without = subprocess.run([BINARY, "serve", tmp_path / "shape", "--print-config", "--backend-directory", BACKENDS],
                             text=True, timeout=60, capture_output=True)
    assert without.returncode == 1 and "has a config.json but no *.safetensors" in without.stderr


def test_index_and_start_table_say_who_runs_the_model(server):
    with httpclient.InferenceServerClient(f"127.0.0.1:{server.http}") as client:
        lines = {(line["name"], line["version"]): line for line in client.get_model_repository_index()}
    for version in ("1", "2"):
        line = lines["model_name", version]
        assert line["state"] == "READY" and line["reason"] == "backend 'cpu' in the place of 'tensorrtllm' (--backend-fallback)"
    assert server.output().count("in the place of 'tensorrtllm' (--backend-fallback)") >= 4


def test_without_the_flag_the_reason_names_it(tmp_path, full_server):
    put(tmp_path, PLAIN, "model_name")
    with Server(tmp_path, "--exit-on-error=false") as server:
        status, _, body = server.raw("POST", "/v2/repository/index")
        [line] = json.loads(body)
        assert line["state"] == "UNAVAILABLE" and "--backend-fallback tensorrtllm=cpu" in line["reason"]


def stream(server, *inputs, request_id="1"):
    """All responses of one request over a gRPC stream; the last may be an error."""
    answers = queue.Queue()
    with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
        client.start_stream(lambda result, error: answers.put(error or result))
        client.async_stream_infer("tensorrt_llm", list(inputs), request_id=request_id, enable_empty_final_response=True)
        out = []
        while True:
            answer = answers.get(timeout=60)
            out.append(answer)
            if isinstance(answer, InferenceServerException):
                return out
            if answer.get_response().parameters["triton_final_response"].bool_param:
                return out


def inputs(streaming=False, length=8, **more):
    out = [tensor(grpcclient, "input_ids", [FOX]), tensor(grpcclient, "input_lengths", [[len(FOX)]]),
           tensor(grpcclient, "request_output_len", [[length]]), tensor(grpcclient, "streaming", [[streaming]], np.bool_)]
    for name, value in more.items():
        kind = {bool: np.bool_, float: np.float32}.get(type(value), np.int32)
        out.append(tensor(grpcclient, name, value if isinstance(value, list) else [[value]], kind))
    return out


def ids(answers):
    whole = [answer.as_numpy("output_ids") for answer in answers if answer.as_numpy("output_ids") is not None]
    return [int(id) for part in whole for id in part.reshape(-1)]


def test_tensorrt_llm_whole_and_in_a_stream(server):
    whole = stream(server, *inputs())
    assert len(whole) == 2 or whole[0].get_response().parameters["triton_final_response"].bool_param
    assert whole[0].as_numpy("output_ids").shape == (1, 1, 12) and ids(whole)[:4] == FOX
    assert whole[0].as_numpy("sequence_length").tolist() == [[12]]
    pieces = stream(server, *inputs(streaming=True))
    parts = [part for part in pieces if part.as_numpy("output_ids") is not None]
    assert len(parts) == 8 and all(part.as_numpy("output_ids").shape == (1, 1, 1) for part in parts)
    assert ids(pieces) == ids(whole)[4:]
    bare = stream(server, *inputs(exclude_input_in_output=True))
    assert ids(bare) == ids(pieces) and bare[0].as_numpy("sequence_length").tolist() == [[8]]


def test_stop_words_and_several_sequences(server):
    new = ids(stream(server, *inputs(exclude_input_in_output=True)))
    word = new[2:4]
    stopped = stream(server, *inputs(exclude_input_in_output=True, stop_words_list=[[word, [2, -1]]]))
    assert ids(stopped) == new[:4]
    streamed = stream(server, *inputs(streaming=True, stop_words_list=[[word, [2, -1]]]))
    assert ids(streamed) == new[:4]
    ended = stream(server, *inputs(exclude_input_in_output=True, end_id=new[3]))
    assert ids(ended) == new[:3]
    two = stream(server, *inputs(num_return_sequences=2, exclude_input_in_output=True))
    assert two[0].as_numpy("output_ids").tolist() == [[new, new]]
    assert two[0].as_numpy("sequence_length").tolist() == [[8, 8]]
    drawn = [ids(stream(server, *inputs(length=6, runtime_top_k=40, temperature=1.5, exclude_input_in_output=True),
                        tensor(grpcclient, "seed", [[seed]], np.uint64))) for seed in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1] and drawn[2:] != drawn[:2]


def test_log_probabilities_and_rules(server):
    answer = stream(server, *inputs(return_log_probs=True, exclude_input_in_output=True))[0]
    logprobs, total = answer.as_numpy("output_log_probs"), answer.as_numpy("cum_log_probs")
    assert logprobs.shape == (1, 1, 8) and (logprobs < 0).all() and total[0, 0] == pytest.approx(logprobs.sum(), abs=1e-4)
    assert stream(server, *inputs())[0].as_numpy("cum_log_probs") is None
    new = ids([answer])
    assert ids(stream(server, *inputs(exclude_input_in_output=True, repetition_penalty=4.0))) != new
    longer = stream(server, *inputs(length=12, end_id=new[3], min_tokens=8, exclude_input_in_output=True))
    assert len(ids(longer)) >= 8 and new[3] not in ids(longer)[:8]


@pytest.mark.parametrize("name, value, said", [
    ("beam_width", 2, "'beam_width' must be 1"),
    ("return_context_logits", True, "'return_context_logits' is not supported"),
    ("return_perf_metrics", True, "'return_perf_metrics' is not supported"),
    ("runtime_top_p", 1.5, "'runtime_top_p' is 1.5, it must be from 0 to 1"),
    ("input_lengths", 9, "'input_lengths' is 9, 'input_ids' has 4 tokens"),
    ("request_output_len", 9000, "'request_output_len' is 9000, the model's context holds 8192"),
    ("request_output_len", 0, "'request_output_len' is 0, it must be at least 1"),
    ("num_return_sequences", 1000, "at most 128"),
    ("end_id", 50000, "outside the vocabulary"),
    ("stop_words_list", [[[1, 2], [7, -1]]], "'stop_words_list': a word from 0 to 7 is not in its 2 ids"),
])
def test_what_is_wrong_is_named(server, name, value, said):
    given = [one for one in inputs() if one.name() != name]
    kind = {bool: np.bool_, float: np.float32}.get(type(value), np.int32)
    given.append(tensor(grpcclient, name, value if isinstance(value, list) else [[value]], kind))
    [error] = stream(server, *given)
    assert said in str(error)


def test_a_configuration_outside_the_contract_is_refused(tmp_path, full_server):
    for name, config, said in (
        ("a", PLAIN.replace("input_ids", "input_ids") + io("input", "input_length", "INT32", "1"), "did you mean 'input_lengths'?"),
        ("b", PLAIN.replace('output_ids" data_type: TYPE_INT32', 'output_ids" data_type: TYPE_INT64'), "must be TYPE_INT32"),
        ("c", PLAIN + io("input", "draft_logits", "FP32", "-1, -1"), "'draft_logits' is not supported"),
    ):
        put(tmp_path, config.replace("model_name", name), name)
    with Server(tmp_path, FALLBACK, "--exit-on-error=false") as server:
        lines = {line["name"]: line["reason"] for line in json.loads(server.raw("POST", "/v2/repository/index")[2])}
    assert "did you mean 'input_lengths'?" in lines["a"]
    assert "must be TYPE_INT32" in lines["b"] and "'draft_logits' is not supported" in lines["c"]


def test_token_models_hold_conversations_too(server):
    with openai.OpenAI(base_url=server.url("/v1"), api_key="none") as client:
        answer = client.chat.completions.create(
            model="model_name:2", temperature=0, messages=[{"role": "user", "content": "What is the capital of France?"}])
    assert answer.choices[0].message.content == "The capital of France is Paris."


def test_serving_a_file(full_server):
    with Server([], str(GGUF), "--model-name=smol") as server:
        output = server.output()
        assert f"OpenAI   http://127.0.0.1:{server.http}/v1" in output and "/v1/chat/completions -d" in output
        assert 'backend: "cpu"' in output and 'name: "text_input"' in output
        with openai.OpenAI(base_url=server.url("/v1"), api_key="none") as client:
            assert [model.id for model in client.models.list()] == ["smol"]
            answer = client.chat.completions.create(
                model="smol", temperature=0, messages=[{"role": "user", "content": "What is the capital of France?"}])
        assert answer.choices[0].message.content == "The capital of France is Paris."
        with httpclient.InferenceServerClient(f"127.0.0.1:{server.http}") as client:
            assert client.is_model_ready("smol", "1")
        talk = subprocess.run([BINARY, "chat", "smol", "--url", server.url(), "--temperature", "0"], text=True, timeout=60,
                              input="What is the capital of France?\nAnd of Italy?\n", capture_output=True)
        assert talk.returncode == 0, talk.stderr
        assert talk.stdout.startswith("The capital of France is Paris.\n") and "Rome" in talk.stdout
        talk = subprocess.run([BINARY, "chat", "nobody", "--url", server.url()], text=True, input="", capture_output=True)
        assert talk.returncode == 1 and "'nobody' does not exist" in talk.stderr
        assert server.stop() == 0


def test_what_cannot_be_served_is_named_as_it_was_given(tmp_path, full_server):
    """Half-downloaded and wrong checkpoints: path and mend, by no other path than the one on the command line."""
    golden = ROOT / "backends" / "cpu" / "tests" / "golden" / "llama"
    config = (golden / "config.json").read_bytes()

    def folder(name, **files):
        (tmp_path / name).mkdir()
        for file, content in {"config.json": config, **{key.replace("__", "."): value for key, value in files.items()}}.items():
            (tmp_path / name / file).write_bytes(content)
        return tmp_path / name

    weights = (golden / "model.safetensors").read_bytes()
    half = tmp_path / "half.gguf"
    with GGUF.open("rb") as whole:
        half.write_bytes(whole.read(60_000_000))
    page = tmp_path / "page.gguf"
    page.write_bytes(b"<!DOCTYPE html>")
    unknown = json.dumps({**json.loads(config), "architectures": ["MambaForCausalLM"]}).encode()
    for path, said in (
        (folder("speechless", model__safetensors=weights), "tokenizer.json: is missing"),
        (folder("cut", model__safetensors=weights[:50_000]), "is cut off"),
        (folder("waiting", model__safetensors__incomplete=b"x"), "its download is not complete"),
        (folder("pointer", model__safetensors=b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
        (folder("foreign", config__json=unknown, model__safetensors=weights), "known are: BertModel, LlamaForCausalLM"),
        (folder("torn", config__json=config[:40], model__safetensors=weights), "config.json: is malformed"),
        (half, "is cut off"), (page, "does not begin with 'GGUF'"),
    ):
        refused = subprocess.run([BINARY, "serve", path, "--print-config", "--backend-directory", BACKENDS], text=True, timeout=60,
                                 capture_output=True)
        last = refused.stderr.splitlines()[-1]
        assert refused.returncode == 1 and said in last and str(path) in last and "/1/" not in last, refused.stderr


def test_a_configuration_to_keep(tmp_path, full_server):
    def run(*arguments, **options):
        return subprocess.run([BINARY, *arguments, "--backend-directory", BACKENDS], text=True, timeout=60, capture_output=True, **options)

    printed = run("serve", GGUF, "--print-config", "--model-name=kept")
    assert printed.returncode == 0, printed.stderr
    put(tmp_path, printed.stdout, "kept")
    with Server(tmp_path) as server:
        server.alive()
    for path, said in ((ROOT / "model_repository", "--model-repository"), (ROOT / "README.md", ".gguf"), ("nowhere", "cannot be read")):
        refused = run("serve", path)
        assert refused.returncode == 1 and said in refused.stderr, refused.stderr
    assert run("serve", GGUF, "--model-repository", tmp_path).returncode == 2
    assert "needs a checkpoint" in run("serve", "--model-repository", tmp_path, "--print-config").stderr
    talk = run("chat", GGUF, "--temperature=0", input="What is the capital of France?\n/exit\n")
    assert talk.returncode == 0, talk.stderr
    assert talk.stdout == "The capital of France is Paris.\n"
    assert "cannot be reached" in run("chat", "x", "--url", "http://127.0.0.1:9").stderr
