#!/usr/bin/env python3
"""Writes tests/fixtures/losses.json: values and gradients of every loss at 900 digits.

    python3 -m venv venv && venv/bin/pip install mpmath
    venv/bin/python scripts/make_loss_oracle.py

The formulas are written here from the papers, naively, without any care for overflow or
cancellation: 900 digits make that unnecessary, as sigma(d) = 1 - e^-d needs as many digits as d has
nats. Gradients are numerical derivatives of the value, so they share nothing with the formulas
under test either. Numbers are the nearest f64.
"""

import json
import pathlib

from mpmath import diff, exp, log, mp, mpf

mp.dps = 900

# policy and reference log-probs of the chosen, the rejected and a sampled response; the lengths.
TUPLES = [
    ((-38.75, -44.5, -41.25), (-40.125, -43.0, -41.5), (18, 25)),
    ((-71.5, -58.25, -60.0), (-62.0, -63.5, -58.75), (33, 21)),
    ((-90.0, -90.0, -75.0), (-90.0, -90.0, -75.0), (40, 40)),
    ((-12.0, -12.625, -9.5), (-12.25, -12.5, -9.25), (7, 8)),
    ((-0.0078125, -0.0625, -0.5), (-0.015625, -0.03125, -0.25), (1, 2)),
    ((-310.5, -140.25, -200.0), (-300.0, -151.75, -190.5), (150, 66)),
    ((-60.0, -110.5, -80.0), (-64.5, -109.0, -83.0), (30, 52)),
    ((-800.0, -30.0, -30.0), (-810.0, -20.0, -31.0), (300, 12)),
    ((-20.0, -900.0, -30.0), (-20.0, -20.0, -31.0), (10, 300)),
    ((-20.0, -25.0, -10.0), (-900.0, -24.0, -10.5), (16, 16)),
]

CLAMP = mpf(80)


def sigma(x):
    return 1 / (1 + exp(-x))


def logits(w, l, r_w, r_l, n_w, n_l, knobs):
    if knobs.get("length_normalized"):
        return w / n_w - l / n_l, r_w / n_w - r_l / n_l
    return w - l, r_w - r_l


def cexpo(w, l, s, r_w, r_l, n_w, n_l, p, lam, margin=0, **knobs):
    d, _ = logits(w, l, r_w, r_l, n_w, n_l, knobs)
    supervised = -p * log(sigma(d - margin)) - (1 - p) * log(sigma(-d - margin))
    return supervised - lam * s


def rexpo(w, l, s, r_w, r_l, n_w, n_l, p, lam, margin=0, **knobs):
    d, d_r = logits(w, l, r_w, r_l, n_w, n_l, knobs)
    return (sigma(d - margin) - (lam * sigma(d_r) + (1 - lam) * p)) ** 2


def both_orders(pairwise):
    def loss(w, l, s, r_w, r_l, n_w, n_l, p, **knobs):
        forward = pairwise(w, l, r_w, r_l, n_w, n_l, **knobs)
        if p == 1:
            return forward
        return p * forward + (1 - p) * pairwise(l, w, r_l, r_w, n_l, n_w, **knobs)

    return loss


@both_orders
def dpo(w, l, r_w, r_l, n_w, n_l, beta, label_smoothing=0):
    z = beta * ((w - r_w) - (l - r_l))
    return -(1 - label_smoothing) * log(sigma(z)) - label_smoothing * log(sigma(-z))


@both_orders
def ipo(w, l, r_w, r_l, n_w, n_l, beta, average_log_prob=False):
    if not average_log_prob:
        n_w = n_l = 1
    return ((w - r_w) / n_w - (l - r_l) / n_l - 1 / (2 * beta)) ** 2


@both_orders
def fdpo(w, l, r_w, r_l, n_w, n_l, beta, divergence, alpha=mpf(1) / 2):
    """The clamp is the tool's own: beyond it the score is a constant."""

    def score(rho):
        ratio = exp(rho)
        if divergence == "reverse_kl":
            return log(ratio)
        if divergence == "jensen_shannon":
            return log(2 * ratio / (1 + ratio))
        if divergence == "forward_kl":
            return 1 - exp(min(-rho, CLAMP))
        return (1 - exp(min(-alpha * rho, CLAMP))) / alpha

    return -log(sigma(beta * (score(w - r_w) - score(l - r_l))))


@both_orders
def simpo(w, l, r_w, r_l, n_w, n_l, beta, gamma):
    return -log(sigma(beta * (w / n_w - l / n_l) - gamma))


LOSSES = [
    *[("cexpo", cexpo, {"lambda": x}) for x in (0.0, 0.05, 10.0)],
    ("cexpo", cexpo, {"lambda": 0.05, "margin": 0.75}),
    ("cexpo", cexpo, {"lambda": 0.05, "length_normalized": True}),
    *[("rexpo", rexpo, {"lambda": x}) for x in (0.0, 0.01, 0.2, 1.0)],
    ("rexpo", rexpo, {"lambda": 0.2, "margin": 0.75}),
    ("rexpo", rexpo, {"lambda": 0.2, "length_normalized": True}),
    ("dpo", dpo, {"beta": 0.1}),
    ("dpo", dpo, {"beta": 0.5, "label_smoothing": 0.2}),
    ("ipo", ipo, {"beta": 0.1}),
    ("ipo", ipo, {"beta": 0.5, "average_log_prob": True}),
    *[
        ("fdpo", fdpo, {"beta": 0.1, "divergence": name})
        for name in ("reverse_kl", "jensen_shannon", "forward_kl", "alpha")
    ],
    ("fdpo", fdpo, {"beta": 0.1, "divergence": "alpha", "alpha": 0.3}),
    ("simpo", simpo, {"beta": 2.0, "gamma": 1.0}),
    ("simpo", simpo, {"beta": 10.0, "gamma": 3.0}),
]

KTO_BATCHES = [
    # (policy, ref, desirable, policy mismatched, ref mismatched)
    [
        (-38.75, -40.125, True, -91.0, -93.5),
        (-44.5, -43.0, False, -88.0, -88.5),
        (-30.0, -31.5, True, -70.0, -69.0),
    ],
    [
        (-38.75, -40.125, True, -91.0, -83.5),
        (-900.0, -43.0, False, -88.0, -88.5),
        (-30.0, -850.0, False, -70.0, -69.0),
    ],
]


def rows():
    for name, loss, knobs in LOSSES:
        # The knobs are the f64 that the tool reads, not the decimals.
        keywords = {
            key.replace("lambda", "lam"): mpf(x) if isinstance(x, float) else x
            for key, x in knobs.items()
        }
        for number, (policy, reference, lengths) in enumerate(TUPLES):
            for p in (1.0, 0.7):
                fixed = [mpf(x) for x in (*reference[:2], *lengths, p)]

                def value(w, l, s):
                    return loss(w, l, s, *fixed, **keywords)

                at = tuple(mpf(x) for x in policy)
                gradient = [
                    diff(value, at, tuple(int(i == j) for j in range(3))) for i in range(3)
                ]
                yield {
                    "loss": name,
                    "knobs": knobs,
                    "tuple": number,
                    "preference": p,
                    "value": float(value(*at)),
                    "grad": [float(g) for g in gradient],
                }


def kto_batches():
    for beta, good, bad in ((0.1, 1.0, 1.0), (0.5, 1.0, 1.33)):
        for batch in KTO_BATCHES:
            z0 = max(mpf(0), sum(mpf(row[3]) - mpf(row[4]) for row in batch) / len(batch))

            def value(policy, reference, desirable):
                x = mpf(beta) * (policy - mpf(reference) - z0)
                return mpf(good) * (1 - sigma(x)) if desirable else mpf(bad) * (1 - sigma(-x))

            yield {
                "knobs": {"beta": beta, "desirable_weight": good, "undesirable_weight": bad},
                "rows": batch,
                "values": [float(value(mpf(w), r, d)) for w, r, d, *_ in batch],
                "grads": [float(diff(lambda w: value(w, r, d), mpf(w))) for w, r, d, *_ in batch],
            }


def main():
    tuples = [
        {"policy": policy, "reference": reference, "tokens": tokens}
        for policy, reference, tokens in TUPLES
    ]
    lists = {"tuples": tuples, "rows": list(rows()), "kto": list(kto_batches())}
    blocks = [
        json.dumps(key) + ": [\n" + ",\n".join(json.dumps(item) for item in items) + "\n]"
        for key, items in lists.items()
    ]
    path = pathlib.Path(__file__).parent.parent / "tests/fixtures/losses.json"
    path.write_text("{\n" + ",\n".join(blocks) + "\n}\n")


if __name__ == "__main__":
    main()
