"""The family of TensorRT-LLM's repository: `preprocessing`, `tensorrt_llm`, `postprocessing`, `ensemble`, `tensorrt_llm_bls`."""

import json
import os
import queue
import shutil

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException

from trireme_server import ROOT, Server, io, write_model

GGUF = ROOT / "model_repository" / "smollm2" / "1" / "model.gguf"
ENGINE = "--backend-fallback=tensorrtllm=cpu"
PYTHON = "--backend-fallback=python=tokenizer"
PROMPT = "The quick brown fox"
FOX = [504, 2365, 6354, 16438]
TYPES = {np.int32: "INT32", np.float32: "FP32", np.bool_: "BOOL", np.uint64: "UINT64", np.object_: "BYTES"}


def put(repository, change=lambda name, config: config):
    shutil.copytree(ROOT / "tests" / "tensorrtllm", repository, dirs_exist_ok=True)
    for config in repository.glob("*/config.pbtxt"):
        (config.parent / "1").mkdir()
        config.write_text(change(config.parent.name, config.read_text()))
    os.symlink(GGUF, repository / "tensorrt_llm" / "1" / "model.gguf")


@pytest.fixture(scope="module")
def server(tmp_path_factory, full_server):
    repository = tmp_path_factory.mktemp("repository")

    def change(name, config):
        # Upstream's own lines: both steps are written in Python there, and some place-holders stay as they are.
        if name in ("preprocessing", "postprocessing"):
            config = config.replace('backend: "tokenizer"', 'backend: "python"')
            config += 'parameters { key: "engine_dir" value { string_value: "${engine_dir}" } }\n'
        return config

    put(repository, change)
    bls = (repository / "tensorrt_llm_bls" / "config.pbtxt").read_text()
    bls = bls.replace('name: "tensorrt_llm_bls"', 'name: "accumulating"')
    write_model(repository, "accumulating", bls.replace('"accumulate_tokens" value { string_value: "false"',
                                                        '"accumulate_tokens" value { string_value: "true"'))
    with Server(repository, ENGINE, PYTHON) as server:
        yield server
        server.alive()


def tensor(module, name, values):
    kind = {bool: np.bool_, float: np.float32, str: np.object_}
    first = np.array(values, dtype=object).reshape(-1)[0] if not isinstance(values, np.ndarray) else values.dtype.type(0)
    dtype = values.dtype.type if isinstance(values, np.ndarray) else kind.get(type(first), np.int32)
    if name in ("seed", "lora_task_id", "prompt_table_extra_id", "PROMPT_TABLE_EXTRA_ID"):
        dtype = np.uint64
    array = np.array(values, dtype)
    made = module.InferInput(name, array.shape, TYPES[dtype])
    made.set_data_from_numpy(array)
    return made


def infer(server, model, module=httpclient, **inputs):
    port = server.http if module is httpclient else server.grpc
    with module.InferenceServerClient(f"127.0.0.1:{port}") as client:
        return client.infer(model, [tensor(module, name, values) for name, values in inputs.items()])


def stream(server, model, **inputs):
    """The responses of a gRPC stream, or its error."""
    answers = queue.Queue()
    with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
        client.start_stream(lambda result, error: answers.put(error or result))
        given = [tensor(grpcclient, name, values) for name, values in inputs.items()]
        client.async_stream_infer(model, given, enable_empty_final_response=True)
        out = []
        while True:
            answer = answers.get(timeout=60)
            if isinstance(answer, InferenceServerException):
                raise answer
            if answer.get_response().outputs:
                out.append(answer)
            if answer.get_response().parameters["triton_final_response"].bool_param:
                return out


def texts(answers, name="text_output"):
    return [one.decode() for answer in answers for one in answer.as_numpy(name).reshape(-1)]


def ask(prompt=PROMPT, length=8, **more):
    return {"text_input": [[prompt]], "max_tokens": [[length]], **more}


def generate(server, model, verb="generate", **body):
    return server.raw("POST", f"/v2/models/{model}/{verb}", json.dumps(body).encode(), {"Content-Type": "application/json"})


def events(body):
    return [json.loads(line[6:]) for line in body.decode().splitlines() if line.startswith("data: ")]


@pytest.mark.parametrize("module", [httpclient, grpcclient])
def test_preprocessing(server, module):
    answer = infer(server, "preprocessing", module, QUERY=[[PROMPT]], REQUEST_OUTPUT_LEN=[[9]])
    assert answer.as_numpy("INPUT_ID").tolist() == [FOX] and answer.as_numpy("REQUEST_INPUT_LEN").tolist() == [[4]]
    assert answer.as_numpy("REQUEST_OUTPUT_LEN").tolist() == [[9]] and answer.as_numpy("OUT_END_ID").tolist() == [[2]]
    for absent in ("DECODER_INPUT_ID", "BAD_WORDS_IDS", "STOP_WORDS_IDS", "EMBEDDING_BIAS"):
        assert answer.as_numpy(absent) is None
    answer = infer(server, "preprocessing", module, QUERY=[[PROMPT], ["The"]], REQUEST_OUTPUT_LEN=[[9], [3]], PAD_ID=[[7], [7]],
                   STOP_WORDS_DICT=[[" quick brown", ""], [" fox", " quick"]])
    assert answer.as_numpy("INPUT_ID").tolist() == [FOX, [504, 7, 7, 7]]
    assert answer.as_numpy("REQUEST_INPUT_LEN").tolist() == [[4], [1]]
    # Row by row: the ids of all words, and behind which of them each word ends.
    assert answer.as_numpy("STOP_WORDS_IDS").tolist() == [[FOX[1:3], [2, -1]], [[FOX[3], FOX[1]], [1, 2]]]
    bias = infer(server, "preprocessing", module, QUERY=[[PROMPT]], EMBEDDING_BIAS_WORDS=[[" fox", " quick brown"]],
                 EMBEDDING_BIAS_WEIGHTS=[[2.0, -1.5]]).as_numpy("EMBEDDING_BIAS")
    assert bias.shape == (1, 49152) and {int(id): float(bias[0, id]) for id in np.flatnonzero(bias)} == {
        FOX[3]: 2.0, FOX[1]: -1.5, FOX[2]: -1.5}


def test_postprocessing_undoes_preprocessing(server):
    for text in (PROMPT, "naïve 你好 🦊, done\n", " leading blank"):
        ids = infer(server, "preprocessing", QUERY=[[text]]).as_numpy("INPUT_ID")
        out = infer(server, "postprocessing", TOKENS_BATCH=ids[np.newaxis], SEQUENCE_LENGTH=[[ids.shape[1]]])
        assert texts([out], "OUTPUT") == [text] and out.as_numpy("OUTPUT").shape == (1, 1)
    beams = infer(server, "postprocessing", TOKENS_BATCH=[[FOX, [504, 2, 2, 2]]], SEQUENCE_LENGTH=[[4, 1]])
    assert texts([beams], "OUTPUT") == [PROMPT, "The"]
    for given, said in (({"SEQUENCE_LENGTH": [[5]]}, "'SEQUENCE_LENGTH' is 5, 'TOKENS_BATCH' has 4 tokens"),
                        ({"SEQUENCE_LENGTH": [[1, 1]]}, "has 2 numbers, 'TOKENS_BATCH' 1 sequences"),
                        ({"TOKENS_BATCH": [[[-3]]], "SEQUENCE_LENGTH": [[1]]}, "-3 is no token id")):
        with pytest.raises(InferenceServerException, match=said):
            infer(server, "postprocessing", **{"TOKENS_BATCH": [[FOX]], **given})


@pytest.mark.parametrize("model", ["ensemble", "tensorrt_llm_bls"])
def test_text_to_text_by_every_way_in(server, model):
    [whole] = texts(stream(server, model, **ask()))
    assert whole.startswith(PROMPT) and len(whole) > len(PROMPT)
    [bare] = texts(stream(server, model, **ask(exclude_input_in_output=[[True]])))
    assert PROMPT + bare == whole
    pieces = texts(stream(server, model, **ask(stream=[[True]])))
    assert len(pieces) == 8 and "".join(pieces) == bare
    status, _, body = generate(server, model, text_input=PROMPT, max_tokens=8)
    assert status == 200 and json.loads(body)["text_output"] == whole, body
    status, _, body = generate(server, model, text_input=PROMPT, max_tokens=8, exclude_input_in_output=True, stream=False)
    assert status == 200 and json.loads(body)["text_output"] == bare
    status, headers, body = generate(server, model, "generate_stream", text_input=PROMPT, max_tokens=8, stream=True)
    assert status == 200 and headers["Content-Type"].startswith("text/event-stream")
    assert [event["text_output"] for event in events(body)] == pieces


def test_http_infer_needs_a_model_of_one_answer(server, tmp_path):
    """The engine is decoupled here; where it is not, `infer` over HTTP and gRPC answers."""
    def change(name, config):
        return config.replace("model_transaction_policy { decoupled: true }\n", "") if name != "postprocessing" else config

    put(tmp_path / "plain", change)
    with Server(tmp_path / "plain", ENGINE) as plain:
        [whole] = texts(stream(server, "ensemble", **ask()))
        for module in (httpclient, grpcclient):
            for model in ("ensemble", "tensorrt_llm_bls"):
                assert texts([infer(plain, model, module, **ask())]) == [whole]
            two = {name: values * 2 for name, values in ask(exclude_input_in_output=[[True]]).items()}
            assert [PROMPT + text for text in texts([infer(plain, "ensemble", module, **two)])] == [whole, whole]
        for model in ("ensemble", "tensorrt_llm_bls"):
            status, _, body = generate(plain, model, text_input=PROMPT, max_tokens=8, stream=True)
            assert status == 400 and "decoupled" in json.loads(body)["error"]


def test_what_is_not_said_comes_from_the_configuration(server):
    [answer] = stream(server, "ensemble", text_input=[[PROMPT]], exclude_input_in_output=[[True]], return_log_probs=[[True]],
                      return_num_input_tokens=[[True]], return_num_output_tokens=[[True]])
    assert answer.as_numpy("num_input_tokens").tolist() == [[4]] and answer.as_numpy("num_output_tokens").tolist() == [[32]]
    assert answer.as_numpy("output_log_probs").shape == (1, 1, 32)
    assert answer.as_numpy("cum_log_probs")[0, 0] == pytest.approx(answer.as_numpy("output_log_probs").sum(), abs=1e-3)
    [plain] = stream(server, "ensemble", **ask())
    assert plain.as_numpy("output_log_probs") is None


def test_rules_reach_the_engine(server):
    [bare] = texts(stream(server, "ensemble", **ask(length=16, exclude_input_in_output=[[True]])))
    word = " " + bare.split()[1]
    [stopped] = texts(stream(server, "ensemble", **ask(length=16, exclude_input_in_output=[[True]], stop_words=[[word]])))
    assert stopped == bare[:bare.index(word) + len(word)]
    [biased] = texts(stream(server, "ensemble", **ask(
        exclude_input_in_output=[[True]], embedding_bias_words=[[" dog"]], embedding_bias_weights=[[100.0]])))
    assert biased == " dog" * 8
    drawn = [texts(stream(server, "ensemble", **ask(top_k=[[40]], temperature=[[1.5]], seed=[[seed]]))) for seed in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1] and drawn[2:] != drawn[:2]
    schema = json.dumps({"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False})
    [guided] = texts(stream(server, "ensemble", **ask(
        length=24, exclude_input_in_output=[[True]], guided_decoding_guide_type=[["json_schema"]], guided_decoding_guide=[[schema]])))
    assert set(json.loads(guided)) == {"ok"}


@pytest.mark.parametrize("model", ["ensemble", "tensorrt_llm_bls"])
def test_a_stream_never_cuts_a_character(server, model):
    """Its tokens are pieces of the characters; upstream's postprocessing makes U+FFFD of them."""
    asked = ask("🦊🐻🦊🐻🦊🐻🦊🐻🦊", 24)
    pieces = texts(stream(server, model, **asked, stream=[[True]]))
    [whole] = texts(stream(server, model, **asked, exclude_input_in_output=[[True]]))
    assert "".join(pieces) == whole and "🐻" in whole and len(pieces) < 24
    assert "\ufffd" not in "".join(pieces[:-1])


def test_accumulated_tokens(server):
    pieces = texts(stream(server, "tensorrt_llm_bls", **ask(stream=[[True]])))
    whole = texts(stream(server, "accumulating", **ask(stream=[[True]])))
    assert whole == ["".join(pieces[:end]) for end in range(1, 9)]


REFUSED = {
    "decoder_text_input": [["x"]], "return_context_logits": [[True]], "return_generation_logits": [[True]],
    "return_perf_metrics": [[True]], "prompt_vocab_size": [[3]], "prompt_table_extra_id": [[3]], "lora_task_id": [[1]],
    "lora_config": [[[1, 2, 3]]], "beam_width": [[2]],
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("model", ["ensemble", "tensorrt_llm_bls"])
def test_what_is_not_supported_is_refused_by_name(server, model, name):
    known = {"decoder_text_input": "DECODER_QUERY|decoder_text_input", "prompt_table_extra_id": "PROMPT_TABLE_EXTRA_ID|prompt_table_extra_id"}
    with pytest.raises(InferenceServerException, match=rf"'({known.get(name, name)})'"):
        stream(server, model, **ask(**{name: REFUSED[name]}))
    # A flag that is false and a text that is empty ask for nothing.
    if isinstance(REFUSED[name][0][0], (bool, str)):
        stream(server, model, **ask(**{name: [[False if REFUSED[name][0][0] is True else ""]]}))


@pytest.mark.parametrize("given, said", [
    ({"text_input": [[""]]}, "'QUERY': text 0 is empty"),
    ({"text_input": [["x" * (1 << 20) + "y"]]}, "'QUERY', row 0, has 1048577 bytes of text, .* takes 1048576 .*'max_text_bytes'"),
    ({"stop_words": [["a" * (1 << 20), "b"]]}, "'STOP_WORDS_DICT', row 0, has 1048577 bytes"),
    ({"max_tokens": [[0]]}, "'request_output_len' is 0, it must be at least 1"),
    ({"max_tokens": [[99999]]}, "context holds 8192"),
    ({"top_p": [[1.5]]}, "'runtime_top_p' is 1.5"),
    ({"end_id": [[77777]]}, "outside the vocabulary"),
    ({"embedding_bias_words": [["a"]]}, "must go together, they have 1 and 0 elements"),
    ({"guided_decoding_guide_type": [["grammar"]]}, "known are json, json_schema and regex"),
])
def test_what_is_wrong_is_said(server, given, said):
    for model in ("ensemble", "tensorrt_llm_bls"):
        with pytest.raises(InferenceServerException, match=said):
            stream(server, model, **{**ask(), **given})


def test_the_longest_text_is_a_parameter_of_the_model_that_says_so(tmp_path):
    config = (ROOT / "tests" / "tensorrtllm" / "preprocessing" / "config.pbtxt").read_text()
    config = config.replace('name: "preprocessing"', 'name: "short"').replace("../../tensorrt_llm/1", str(GGUF))
    write_model(tmp_path, "short", config + 'parameters { key: "max_text_bytes" value { string_value: "5" } }\n')
    with Server(tmp_path) as server:
        length = np.array([[1]], np.int32)
        infer(server, "short", QUERY=[["12345"]], REQUEST_OUTPUT_LEN=length)
        with pytest.raises(InferenceServerException, match="'QUERY', row 0, has 6 bytes of text, the model 'short' takes 5 "):
            infer(server, "short", QUERY=[["12\u00e945"]], REQUEST_OUTPUT_LEN=length)


def test_configurations_that_cannot_serve_say_why(tmp_path, full_server):
    put(tmp_path, lambda name, config: {
        "preprocessing": config.replace('backend: "tokenizer"', 'backend: "python"'),
        "postprocessing": config.replace("../../tensorrt_llm/1", "nowhere"),
        "tensorrt_llm_bls": config.replace('key: "accumulate_tokens"', 'key: "accumulate"'),
    }.get(name, config))
    python = 'name: "mine"\nbackend: "tokenizer"\n' + io("input", "IN", "FP32", "1") + io("output", "OUT", "FP32", "1")
    write_model(tmp_path, "mine", python)
    typed = (tmp_path / "preprocessing" / "config.pbtxt").read_text().replace('"python"', '"tokenizer"')
    write_model(tmp_path, "typed", typed.replace('name: "preprocessing"', 'name: "typed"').replace(
        'name: "INPUT_ID" data_type: TYPE_INT32', 'name: "INPUT_ID" data_type: TYPE_INT64'))
    with Server(tmp_path, ENGINE, "--exit-on-error=false") as server:
        index = {line["name"]: line for line in json.loads(server.raw("POST", "/v2/repository/index")[2])}
        for name, said in (("preprocessing", "--backend-fallback python=tokenizer"), ("postprocessing", "nowhere"),
                           ("tensorrt_llm_bls", "unknown parameter 'accumulate'"), ("mine", "it runs no Python"),
                           ("typed", "output 'INPUT_ID' is TYPE_INT64, it must be TYPE_INT32")):
            assert index[name]["state"] == "UNAVAILABLE" and said in index[name]["reason"], index[name]
        assert index["tensorrt_llm"]["state"] == "READY"
