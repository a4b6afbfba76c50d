"""What a GPU does at most, as PyTorch reaches it: matmuls in bf16 of the shapes of Pythia-2.8B on 64
pairs of HH, and a copy. Prints `name TAB figure TAB unit` as each is known."""

import torch

TOKENS, PREDICTIONS = 13_600, 5_500
# Rows, columns, and what is summed over.
PRODUCTS = {
    "queries, keys, values": (TOKENS, 7_680, 2_560),
    "attention's output": (TOKENS, 2_560, 2_560),
    "MLP, up": (TOKENS, 10_240, 2_560),
    "MLP, down": (TOKENS, 2_560, 10_240),
    "a weight's gradient": (2_560, 10_240, TOKENS),
    "head": (PREDICTIONS, 50_304, 2_560),
    "a token of 64 sequences": (64, 10_240, 2_560),
    "8192^3": (8_192, 8_192, 8_192),
}


def seconds(work, rounds: int = 12) -> float:
    """The median of the rounds, by the GPU's own clock."""
    for _ in range(3):
        work()
    events = [torch.cuda.Event(enable_timing=True) for _ in range(rounds + 1)]
    events[0].record()
    for event in events[1:]:
        work()
        event.record()
    torch.cuda.synchronize()
    times = sorted(before.elapsed_time(after) for before, after in zip(events, events[1:]))
    return times[rounds // 2] / 1e3


def main() -> None:
    for name, (rows, columns, inner) in PRODUCTS.items():
        left = torch.randn(rows, inner, device="cuda", dtype=torch.bfloat16)
        right = torch.randn(columns, inner, device="cuda", dtype=torch.bfloat16).t()
        rate = 2 * rows * columns * inner / seconds(lambda: left @ right)
        print(f"product, {name}\t{rate / 1e12:.0f}\tTFLOP/s", flush=True)
    source = torch.zeros(1 << 30, device="cuda", dtype=torch.float32)
    target = torch.empty_like(source)
    moved = 2 * source.numel() * source.element_size()
    print(f"copy of 4 GiB\t{moved / seconds(lambda: target.copy_(source)) / 1e12:.2f}\tTB/s", flush=True)


main()
