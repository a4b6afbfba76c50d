#!/usr/bin/env python3
"""Makes tests/fixtures/oracle/optimizers.json: updates of optimizers by their published rules.

    python scripts/make_optimizer_oracle.py            # needs numpy, torch and bitsandbytes

AdamW with moments in 8 bits is written out in numpy, operation by operation in float32, so that codes
compare exactly. Its maps are bitsandbytes' own, and its codes those of bitsandbytes' reference in PyTorch,
which is run beside it, but for squares that round to 0 (see src/kernels/operands/blockwise.rs). The CPU
kernel of bitsandbytes 0.50.2 is no oracle: its table is so coarse that all numbers under 1.5e-5 of the
largest get one code.

Muon is written out in float64. torch.optim.Muon, which orthogonalizes in bfloat16, is run beside it.
"""

import json
from pathlib import Path

import bitsandbytes
import bitsandbytes.functional as F
import numpy as np
import torch
from bitsandbytes.backends.triton.kernels_optim import _quantize_blockwise_pytorch

OUT = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "oracle" / "optimizers.json"
BLOCK = 256
STEPS = 6
f32 = np.float32


def gradient(n, step):
    """Numbers of five magnitudes, of which some are 0: the same in Rust."""
    numbers = []
    for i in range(n):
        x = (i * 7919 + step * 104729) % 2003 - 1001
        numbers.append(0.0 if (i + step) % 7 == 0 else x / 1001 / [1, 10, 100, 1000, 10000][i % 5])
    return np.array(numbers, dtype=f32)


def start(n):
    return np.array([(i * 613 % 997 - 498) / 498 for i in range(n)], dtype=f32)


def blocks(x):
    return [slice(i, min(i + BLOCK, len(x))) for i in range(0, len(x), BLOCK)]


def decode(codes, absmax, table):
    x = np.zeros(len(codes), dtype=f32)
    for block, most in zip(blocks(x), absmax):
        x[block] = table[codes[block]] * most
    return x


def encode(x, table):
    """The nearest number of the table, the lower one of a tie; without signs only 0 gets the code of 0."""
    bounds = ((table[:-1].astype(np.float64) + table[1:].astype(np.float64)) / 2).astype(f32)
    if table[0] == 0:
        bounds[0] = 0
    codes, absmax = np.zeros(len(x), dtype=np.uint8), []
    for block in blocks(x):
        most = np.abs(x[block]).max()
        absmax.append(most)
        codes[block] = np.searchsorted(bounds, x[block] / (most if most > 0 else f32(1)), side="left")
    return codes, np.array(absmax, dtype=f32)


def adam_8bit(n, hyper, maps):
    beta1, beta2, epsilon, rate, decay = hyper
    w = start(n)
    codes = [np.zeros(n, dtype=np.uint8) for _ in range(2)]
    absmax = [np.zeros(len(blocks(w)), dtype=f32) for _ in range(2)]
    for step in range(1, STEPS + 1):
        g = gradient(n, step)
        m, v = (decode(*moment, table) for *moment, table in zip(codes, absmax, maps))
        m = f32(beta1) * m + f32(1 - beta1) * g
        v = f32(beta2) * v + f32(1 - beta2) * (g * g)
        corrected, root = f32(rate / (1 - beta1**step)), f32(1 / (1 - beta2**step) ** 0.5)
        w = f32(1 - rate * decay) * w - corrected * (m / (root * np.sqrt(v) + f32(epsilon)))
        (codes[0], absmax[0]), (codes[1], absmax[1]) = encode(m, maps[0]), encode(v, maps[1])
    return w, codes, absmax


def check_codes(maps):
    """Against bitsandbytes' reference, of numbers of many magnitudes."""
    torch._dynamo.config.disable = True
    random = np.random.default_rng(0)
    x = (random.standard_normal(40 * BLOCK) * 10 ** random.uniform(-8, 0, 40 * BLOCK)).astype(f32)
    for x, table in ((x, maps[0]), (np.abs(x), maps[1])):
        ours, absmax = encode(x, table)
        theirs, their_absmax = _quantize_blockwise_pytorch(torch.tensor(x), torch.tensor(table), BLOCK)
        theirs = theirs.numpy()
        if table[0] == 0:
            theirs = np.maximum(theirs, x > 0)
        assert (absmax == their_absmax.numpy()).all()
        # A bound is a rounded midpoint.
        assert (ours != theirs).mean() < 1e-3, (ours != theirs).sum()


def orthogonalized(x):
    """torch's _zeropower_via_newtonschulz in float64."""
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / max(np.linalg.norm(x), 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if tall else x


def muon(shape, rate, decay, momentum):
    n = shape[0] * shape[1]
    w, m = start(n).astype(np.float64).reshape(shape), np.zeros(shape)
    theirs = torch.nn.Parameter(torch.tensor(w.astype(f32)))
    optimizer = torch.optim.Muon(
        [theirs], lr=rate, weight_decay=decay, momentum=momentum, adjust_lr_fn="match_rms_adamw"
    )
    for step in range(1, STEPS + 1):
        g = gradient(n, step).astype(np.float64).reshape(shape)
        m = momentum * m + (1 - momentum) * g
        u = momentum * m + (1 - momentum) * g
        w = (1 - rate * decay) * w - rate * 0.2 * max(shape) ** 0.5 * orthogonalized(u)
        theirs.grad = torch.tensor(g.astype(f32))
        optimizer.step()
    moved = np.linalg.norm(w - start(n).reshape(shape))
    off = np.linalg.norm(w - theirs.detach().numpy()) / moved
    print(f"muon {shape}: torch's bfloat16 is {off:.4f} of the way off")
    assert off < 0.03
    return {"shape": shape, "weights": w.flatten().tolist()}


def main():
    maps = [F.create_dynamic_map(signed=signed).numpy() for signed in (True, False)]
    n, hyper = 2 * BLOCK + 77, (0.9, 0.999, 1e-8, 0.01, 0.1)
    w, codes, absmax = adam_8bit(n, hyper, maps)
    check_codes(maps)
    file = {
        "versions": {
            "bitsandbytes": bitsandbytes.__version__,
            "numpy": np.__version__,
            "torch": torch.__version__.split("+")[0],
        },
        "muon": [muon(shape, 0.02, 0.1, 0.95) for shape in ((6, 17), (17, 6))],
        "maps": [table.tolist() for table in maps],
        "adam_8bit": {
            "n": n,
            "steps": STEPS,
            "weights": w.tolist(),
            "codes": [x.tolist() for x in codes],
            "absmax": [x.tolist() for x in absmax],
        },
    }
    OUT.write_text(json.dumps(file) + "\n")


main()
