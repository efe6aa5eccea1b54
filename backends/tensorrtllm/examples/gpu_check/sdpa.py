"""PyTorch's own attention at the sizes of `gpu_check attention-bench`, and the ceilings of the GPU."""
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel


def median_ms(run, n=20):
    for _ in range(3):
        run()
    times = []
    for _ in range(n):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record(), run(), b.record()
        torch.cuda.synchronize()
        times.append(a.elapsed_time(b))
    return sorted(times)[n // 2]


print(torch.cuda.get_device_name(), torch.__version__)
x = torch.empty(2 << 30, dtype=torch.uint8, device="cuda")
y = torch.empty_like(x)
print(f"copy {2 * x.numel() / median_ms(lambda: y.copy_(x)) / 1e6:.0f} GB/s read and written")
del x, y
a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
print(f"bf16 product 8192: {2 * 8192**3 / median_ms(lambda: a @ b) / 1e9:.0f} TFLOP/s")
for hd in (128, 64):
    for prompts, length in ((8, 1024), (2, 4096), (1, 8192)):
        q = torch.randn(prompts, 32, length, hd, device="cuda", dtype=torch.bfloat16)
        k, v = (torch.randn(prompts, 8, length, hd, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        for name, backend in (("cudnn", SDPBackend.CUDNN_ATTENTION), ("flash", SDPBackend.FLASH_ATTENTION)):
            try:
                with sdpa_kernel(backend):
                    ms = median_ms(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True))
                work = 4 * hd * 32 * prompts * length * (length + 1) / 2
                print(f"head {hd}: prefill {prompts} x {length}: {name} {ms * 1e3:.1f} us, {work / ms / 1e9:.0f} TFLOP/s")
            except Exception as e:
                print(f"head {hd}: {name}: {str(e).splitlines()[0][:100]}")
    for rows, context in ((1, 1024), (8, 1024), (32, 1024), (128, 1024), (32, 8192)):
        q = torch.randn(rows, 32, 1, hd, device="cuda", dtype=torch.bfloat16)
        sets = [[torch.randn(rows, 8, context, hd, device="cuda", dtype=torch.bfloat16) for _ in range(2)] for _ in range(4)]
        for name, backend in (("cudnn", SDPBackend.CUDNN_ATTENTION), ("flash", SDPBackend.FLASH_ATTENTION)):
            try:
                with sdpa_kernel(backend):
                    ms = median_ms(lambda: [F.scaled_dot_product_attention(q, k, v, enable_gqa=True) for k, v in sets]) / 4
                moved = rows * context * 8 * hd * 4
                print(f"head {hd}: decode {rows} x {context}: {name} {ms * 1e3:.1f} us, {moved / ms / 1e6:.0f} GB/s")
            except Exception as e:
                print(f"head {hd}: decode {name}: {str(e).splitlines()[0][:100]}")
