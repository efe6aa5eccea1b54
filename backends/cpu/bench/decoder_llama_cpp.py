"""Decode and prefill speed of llama.cpp on a GGUF file, in the form that bench_llm prints.

    python decoder_llama_cpp.py FILE THREADS CONTEXT PROMPT DECODE STREAMS REPEAT [PROMPT_THREADS]

The library is called directly (`llama_decode` and a greedy choice over the logits), so that nothing but it is measured.
Flash attention is left to llama.cpp's own choice, keys and values are F16 as ours.
"""

import ctypes
import statistics
import sys
import time

import llama_cpp as lib
import numpy as np

file, (threads, context, prompt, decode, streams, repeat) = sys.argv[1], map(int, sys.argv[2:8])
prompt_threads = int(sys.argv[8]) if len(sys.argv) > 8 else threads
STEP = 512

quiet = lib.llama_log_callback(lambda level, text, data: None)
lib.llama_log_set(quiet, ctypes.c_void_p(0))
lib.llama_backend_init()
params = lib.llama_model_default_params()
params.n_gpu_layers = 0
model = lib.llama_load_model_from_file(file.encode(), params)
if not model:
    sys.exit(f"llama.cpp cannot load {file}")
vocab = lib.llama_n_vocab(lib.llama_model_get_vocab(model))

settings = lib.llama_context_default_params()
settings.n_ctx = streams * (context + prompt + decode + 64)
settings.n_batch = settings.n_ubatch = STEP
settings.n_seq_max = streams
settings.n_threads, settings.n_threads_batch = threads, prompt_threads
settings.kv_unified = streams == 1
ctx = lib.llama_new_context_with_model(model, settings)
if not ctx:
    sys.exit("llama.cpp cannot make a context")
memory = lib.llama_get_memory(ctx)
batch = lib.llama_batch_init(max(STEP, streams), 0, 1)


def put(i, token, position, stream, logits):
    batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position, 1
    batch.seq_id[i][0], batch.logits[i] = stream, logits


def run_batch(n):
    batch.n_tokens = n
    if lib.llama_decode(ctx, batch) != 0:
        sys.exit("llama_decode failed")


def greedy(i):
    logits = lib.llama_get_logits_ith(ctx, i)
    return int(np.ctypeslib.as_array(logits, shape=(vocab,)).argmax())


def read(tokens, start, stream):
    """Reads a piece of a prompt; gives the greedy token behind it."""
    for at in range(0, len(tokens), STEP):
        piece = tokens[at : at + STEP]
        last = at + STEP >= len(tokens)
        for i, token in enumerate(piece):
            put(i, token, start + at + i, stream, last and i + 1 == len(piece))
        run_batch(len(piece))
    return greedy(len(piece) - 1)


def run(decode):
    lib.llama_memory_clear(memory, True)
    tokens = [(i * 7919 + 13) % vocab for i in range(context + prompt)]
    for stream in range(streams):
        if context:
            read(tokens[:context], 0, stream)
    start = time.perf_counter()
    now = [read(tokens[context:], context, stream) for stream in range(streams)]
    prefill = prompt * streams / (time.perf_counter() - start)
    start = time.perf_counter()
    for step in range(decode):
        for stream in range(streams):
            put(stream, now[stream], context + prompt + step, stream, True)
        run_batch(streams)
        now = [greedy(stream) for stream in range(streams)]
    return prefill, decode * streams / (time.perf_counter() - start)


run(min(decode, 16))
results = [run(decode) for _ in range(repeat)]
prefill, decoded = (statistics.median(column) for column in zip(*results))
print(
    f"engine=llama.cpp package={lib.__version__} threads={threads} prompt_threads={prompt_threads} context={context} "
    f"prompt={prompt} decode={decode} streams={streams} prefill_tokens_per_s={prefill:.1f} "
    f"decode_tokens_per_s={decoded:.1f}"
)
