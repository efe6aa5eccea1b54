"""Holds what the engine computes against PyTorch: parity.py make DIR, then `PARITY_DIR=DIR gpu_check parity`, then
parity.py judge DIR.

The rule, over all positions of a mode: the reference is transformers in FP32 with the same bf16 weights; our mean
divergence from it is at most 1.25 times that of transformers in BF16, the 99.9th percentile at most twice, and wherever
the reference's best two tokens are more than 0.1 nat apart, ours is the same. Three faults that are put into the
reference must break the rule.
"""
import json, math, pathlib, sys, time
import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

TIE = 0.1


def base(**kw):
    c = dict(architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=1000, hidden_size=256,
             intermediate_size=512, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=64,
             rope_theta=10000.0, rms_norm_eps=1e-5, max_position_embeddings=2048, tie_word_embeddings=False,
             hidden_act="silu", bos_token_id=1, eos_token_id=2)
    return c | kw


def qwen2(**kw):
    return base(architectures=["Qwen2ForCausalLM"], model_type="qwen2") | kw


MODELS = {
    "head-64": base(),
    "head-128": base(head_dim=128, num_key_value_heads=1),
    "head-80": base(head_dim=80, num_key_value_heads=4),
    "head-96-bias": qwen2(head_dim=96),
    "head-256": base(head_dim=256, num_attention_heads=2, num_key_value_heads=1),
    "tied-12-heads": base(hidden_size=384, num_attention_heads=12, num_key_value_heads=1, tie_word_embeddings=True),
    "qwen3": base(architectures=["Qwen3ForCausalLM"], model_type="qwen3", head_dim=128),
    "mistral-window": base(architectures=["MistralForCausalLM"], model_type="mistral", sliding_window=100),
    "qwen2-window": qwen2(use_sliding_window=True, sliding_window=40, max_window_layers=1),
    "llama3-rope": base(rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                          original_max_position_embeddings=128)),
    "smollm2-shape": base(hidden_size=576, intermediate_size=1536, num_attention_heads=9, num_key_value_heads=3,
                          num_hidden_layers=30, vocab_size=49152, tie_word_embeddings=True, rope_theta=100000.0),
    "llama-1b-shape": base(vocab_size=128256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16,
                           num_attention_heads=32, num_key_value_heads=8, tie_word_embeddings=True,
                           rope_theta=500000.0),
}


def entropy(logits):
    p = torch.log_softmax(logits.double(), -1)
    return float(-(p.exp() * p).sum(-1).mean())


def randomise(model, config, gain, spread, seed):
    g = torch.Generator(device="cuda").manual_seed(seed)
    h, v = config["hidden_size"], config["vocab_size"]
    spread *= math.sqrt(2 * (math.log(v) - 3))
    for name, p in model.named_parameters():
        rand = torch.randn(p.shape, generator=g, device="cuda")
        if "norm" in name:
            head = "q_norm" in name or "k_norm" in name
            x = (1.2 + 0.2 * rand) if head else (1 + 0.1 * rand)
        elif "embed" in name or "lm_head" in name:
            x = rand * spread / math.sqrt(h)
        elif name.endswith("bias"):
            x = 0.3 * rand
        else:
            scale = 1.2 if any(k in name for k in ("q_proj", "k_proj", "v_proj")) else 1.0
            if "o_proj" in name or "down_proj" in name:
                scale = 0.5 * gain
            x = rand * scale / math.sqrt(p.shape[1])
        p.data.copy_(x.to(torch.bfloat16))


def make(root):
    torch.manual_seed(1)
    for i, (name, config) in enumerate(MODELS.items()):
        d = root / name
        d.mkdir(parents=True, exist_ok=True)
        text = json.dumps(config)
        (d / "config.json").write_text(text)
        with torch.device("cuda"):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(d), dtype=torch.bfloat16)
        rng = np.random.default_rng(i)
        ids = lambda n: rng.integers(3, config["vocab_size"], n).tolist()
        for spread, gain in [(1, g) for g in (1, 4, 12, 24, 48, 96)] + [(1.1, 96), (1.2, 96), (1.3, 96)]:
            randomise(model, config, gain, spread, 100 + i)
            with torch.no_grad():
                e = entropy(model(torch.tensor([ids(400)], device="cuda")).logits[0].float())
            if 2 <= e <= 4:
                break
        print(f"{name}: mean entropy {e:.2f} nats, gain {gain}, spread {spread}", flush=True)
        tensors = {k: v.contiguous() for k, v in model.state_dict().items()
                   if not (config["tie_word_embeddings"] and k == "lm_head.weight") and "rotary" not in k}
        save_file(tensors, str(d / "model.safetensors"))
        large = config["vocab_size"] > 10000
        lengths = [500, 1, 33, 200] if large else [480, 1, 33, 200, 300, 130, 97, 860]
        # The second: what is read in pieces of 7 is the first two.
        texts = [ids(int(n)) for n in rng.integers(1, 90, 17 if large else 40)]
        (d / "prompts.json").write_text(json.dumps(dict(prompts=[ids(n) for n in lengths], texts=texts, ways=i == 0)))
        del model


class Fault:
    """Puts a fault into the reference's attention."""

    def __init__(self, model, kind):
        self.model, self.kind, self.undo = model, kind, []

    def __enter__(self):
        module = sys.modules[type(self.model).__module__]
        if self.kind == "scale":
            for layer in self.model.model.layers:
                self.undo.append((layer.self_attn, "scaling", layer.self_attn.scaling))
                layer.self_attn.scaling = 1.0
            return
        plain = module.apply_rotary_pos_emb
        self.undo.append((module, "apply_rotary_pos_emb", plain))

        def rope(q, k, cos, sin, *rest, **kw):
            if self.kind == "rope":
                q, k2 = plain(q, k, cos, sin)[0], plain(k, k, cos.roll(-1, 1), sin.roll(-1, 1))[0]
                return q, k2
            q, k = plain(q, k, cos, sin)
            if k.shape[2] > 64:
                k = k.clone()
                k[:, :, 32:64] = k[:, :, 0:32]
            return q, k

        module.apply_rotary_pos_emb = rope

    def __exit__(self, *_):
        for place, name, value in self.undo:
            setattr(place, name, value)


def divergence(ref, other):
    """Of each row, on the GPU in double precision."""
    p, q = torch.log_softmax(ref.double(), -1), torch.log_softmax(other.double(), -1)
    kl = (p.exp() * (p - q)).sum(-1)
    return torch.where(kl.isnan(), torch.full_like(kl, math.inf), kl)


def flips(ref, other):
    """Rows whose best is another one although the reference's best two are further apart than a tie."""
    top = torch.log_softmax(ref.double(), -1).topk(2, -1)
    apart = top.values[:, 0] - top.values[:, 1] > TIE
    return int((apart & (other.argmax(-1) != top.indices[:, 0])).sum())


class Mode:
    def __init__(self, d, name, vocab):
        meta = json.loads((d / "out" / f"{name}.json").read_text())
        rows = np.memmap(d / "out" / f"{name}.f32", dtype=np.float32, mode="r").reshape(-1, vocab)
        self.parts, at = [], 0
        for ids, first in zip(meta["sequences"], meta["first"]):
            n = len(ids) - first
            self.parts.append((ids, first, rows[at:at + n]))
            at += n
        assert at == len(rows), (name, at, len(rows))


def score(mode, reference, half=None, limit=None):
    """Divergences and flips of the engine, and of transformers in BF16."""
    ours, theirs, flipped, their_flips = [], [], 0, 0
    with torch.no_grad():
        for ids, first, rows in mode.parts[:limit]:
            x = torch.tensor([ids], device="cuda")
            ref = reference(x).logits[0, first:].float()
            got = torch.tensor(np.array(rows), device="cuda")
            ours.append(divergence(ref, got))
            flipped += flips(ref, got)
            if half is not None:
                h = half(x).logits[0, first:].float()
                theirs.append(divergence(ref, h))
                their_flips += flips(ref, h)
    cat = lambda v: torch.cat(v).cpu().numpy() if v else None
    return cat(ours), cat(theirs), flipped, their_flips


def judge(root):
    failed = 0
    print("| model | mode | positions | mean KL ours / bf16 | ratio | 99.9 % ours / bf16 | ratio | other best ours / bf16 | |")
    print("|---|---|---|---|---|---|---|---|---|")
    for d in sorted(root.iterdir()):
        if not (d / "out").exists():
            continue
        config = json.loads((d / "config.json").read_text())
        load = lambda dtype, attn: AutoModelForCausalLM.from_pretrained(
            d, dtype=dtype, attn_implementation=attn).cuda().eval()
        reference, half = load(torch.float32, "eager"), load(torch.bfloat16, "sdpa")
        modes = sorted(p.stem for p in (d / "out").glob("*.json"))
        pooled, pooled_half = [], []
        for name in modes:
            mode = Mode(d, name, config["vocab_size"])
            ours, theirs, flipped, their_flips = score(mode, reference, half)
            pooled.append(ours), pooled_half.append(theirs)
            mean, tail = ours.mean() / theirs.mean(), np.quantile(ours, 0.999) / np.quantile(theirs, 0.999)
            good = mean <= 1.25 and tail <= 2 and flipped == 0
            failed += not good
            print(f"| {d.name} | {name} | {len(ours)} | {ours.mean():.2e} / {theirs.mean():.2e} | {mean:.2f} | "
                  f"{np.quantile(ours, 0.999):.2e} / {np.quantile(theirs, 0.999):.2e} | {tail:.2f} | "
                  f"{flipped} / {their_flips} | {'ok' if good else 'FAIL'} |", flush=True)
        ours, theirs = np.concatenate(pooled), np.concatenate(pooled_half)
        print(f"| {d.name} | all | {len(ours)} | {ours.mean():.2e} / {theirs.mean():.2e} | "
              f"{ours.mean() / theirs.mean():.2f} | {np.quantile(ours, 0.999):.2e} / {np.quantile(theirs, 0.999):.2e} | "
              f"{np.quantile(ours, 0.999) / np.quantile(theirs, 0.999):.2f} | | |", flush=True)
        if config["model_type"] == "llama" and config["hidden_size"] == 256:
            whole = Mode(d, "whole", config["vocab_size"])
            bound = 1.25 * pooled_half[modes.index("whole")].mean()
            for kind in ("rope", "block", "scale"):
                with Fault(reference, kind):
                    bad, _, flipped, _ = score(whole, reference)
                seen = bad.mean() > bound or flipped > 0
                failed += not seen
                print(f"| {d.name} | fault: {kind} | {len(bad)} | {bad.mean():.2e} | | | | {flipped} | "
                      f"{'seen' if seen else 'NOT SEEN'} |", flush=True)
        del reference, half
        torch.cuda.empty_cache()
    print("parity:", "holds" if failed == 0 else f"{failed} FAIL")
    return failed


if __name__ == "__main__":
    what, root = sys.argv[1], pathlib.Path(sys.argv[2])
    start = time.time()
    failed = make(root) if what == "make" else judge(root)
    print(f"{what}: {time.time() - start:.0f} s")
    sys.exit(bool(failed))
