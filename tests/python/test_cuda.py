"""The backend `tensorrtllm` on a machine without an NVIDIA driver, and what is handed over to `trireme-gpu`."""
import json
import os
import pathlib
import subprocess

import pytest

from trireme_server import BACKENDS, BINARY, Server

DRIVER = any(pathlib.Path(mark).exists() for mark in ("/dev/nvidiactl", "/proc/driver/nvidia/version"))
pytestmark = pytest.mark.skipif(DRIVER, reason="this machine has a driver")

SHAPE = {"architectures": ["LlamaForCausalLM"], "vocab_size": 320, "hidden_size": 64, "intermediate_size": 96,
         "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 64,
         "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 1e4, "bos_token_id": 1, "eos_token_id": 2}


def model(root, extra=""):
    (root / "m/1").mkdir(parents=True)
    (root / "m/1/config.json").write_text(json.dumps(SHAPE))
    (root / "m/config.pbtxt").write_text(
        'backend: "tensorrtllm"\nparameters { key: "load_format" value { string_value: "dummy" } }\n' + extra)


def index(server):
    _, _, body = server.raw("POST", "/v2/repository/index")
    return json.loads(body)[0]


def test_without_a_driver_the_reason_is_one_sentence(tmp_path):
    model(tmp_path)
    with Server(tmp_path, "--exit-on-error=false") as server:
        line = index(server)
        assert line["state"] == "UNAVAILABLE"
        assert "there is no NVIDIA driver on this machine" in line["reason"] and "\n" not in line["reason"]
        assert "--backend-fallback tensorrtllm=cpu" in line["reason"]


def test_the_cpu_stands_in_also_for_parameters_of_the_gpu(tmp_path):
    model(tmp_path, 'parameters { key: "use_cuda_graph" value { string_value: "false" } }\n'
                    'parameters { key: "deterministic" value { string_value: "true" } }\n')
    with Server(tmp_path, "--backend-fallback=tensorrtllm=cpu") as server:
        assert index(server)["state"] == "READY"
        status, _, body = server.raw("POST", "/v2/models/m/generate",
                                     json.dumps({"text_input": "ab", "max_tokens": 2}).encode())
        assert status == 200, body


def test_names_of_one_setting_must_agree(tmp_path):
    model(tmp_path)
    command = [BINARY, "serve", "--model-repository", tmp_path, "--backend-directory", BACKENDS, "--use_cuda_graph=false",
               "--backend-config=tensorrtllm,use_cuda_graph=true"]
    refused = subprocess.run(command, text=True, timeout=60, capture_output=True)
    assert refused.returncode == 1 and "names of one setting" in refused.stderr


def test_explain_and_profile_hand_the_configuration_over(tmp_path):
    model(tmp_path)
    for command in ("explain", "profile"):
        run = subprocess.run([BINARY, command, tmp_path / "m"], text=True, timeout=60, capture_output=True)
        assert run.returncode == 1 and "there is no NVIDIA driver on this machine" in run.stderr, run.stderr
    (tmp_path / "m/config.pbtxt").write_text(
        'backend: "tensorrtllm"\nparameters { key: "use_cuda_grap" value { string_value: "true" } }\n')
    run = subprocess.run([BINARY, "explain", tmp_path / "m"], text=True, timeout=60, capture_output=True)
    assert run.returncode == 1 and "did you mean 'use_cuda_graph'" in run.stderr, run.stderr
    assert os.path.exists(BINARY.with_name("trireme-gpu"))
