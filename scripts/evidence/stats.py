"""Intervals for figures that are means over prompts and, with several seeds, over runs.

Two sources of chance: the prompts (or pairs) of the evaluation set, which all runs share, and the seed of a run.
Prompts are resampled (paired bootstrap: a difference of two settings is taken prompt by prompt); seeds are a random
effect, of which only a few values are known. The variances add, and Student's t has Satterthwaite's degrees of
freedom. With one seed the interval is of the prompts alone, and `seeds` says so.
"""

import math
import random
from typing import NamedTuple

BOOTSTRAP = 1000


class Interval(NamedTuple):
    """A mean with its 95% interval, and of how many prompts and seeds it is."""

    value: float
    low: float
    high: float
    prompts: int
    seeds: int

    def excludes(self, value: float) -> bool:
        return value < self.low or value > self.high


def incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularized incomplete beta function I_x(a, b), by Lentz's continued fraction."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(1 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    c, d = 1.0, 1 / max(1 - (a + b) * x / (a + 1), 1e-300)
    value = d
    for m in range(1, 500):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + numerator * d)
            c = 1 + numerator / c
            value *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return front * value


def student(freedom: float, probability: float = 0.975) -> float:
    """The quantile of Student's t above the median."""

    def below(t: float) -> float:
        return 1 - incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5) / 2

    low, high = 0.0, 1.0
    while below(high) < probability:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) < probability else (low, middle)
    return high


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def variance(values: list[float]) -> float:
    """With n - 1; 0 of a single value."""
    if len(values) < 2:
        return 0.0
    center = mean(values)
    return math.fsum((value - center) ** 2 for value in values) / (len(values) - 1)


def resampled(values: list[float], seed: int = 0) -> list[float]:
    """Sorted means of bootstrap samples."""
    draw = random.Random(seed)
    return sorted(mean(draw.choices(values, k=len(values))) for _ in range(BOOTSTRAP))


def interval(by_seed: dict) -> Interval | None:
    """Of figures by seed and prompt: {seed: {prompt: value}}. Prompts that a seed lacks are left out of all."""
    tables = [table for table in by_seed.values() if table]
    if not tables:
        return None
    common = set.intersection(*(set(table) for table in tables))
    prompts = [prompt for prompt in tables[0] if prompt in common]
    if not prompts:
        return None
    of_prompts = [mean([table[prompt] for table in tables]) for prompt in prompts]
    of_seeds = [mean([table[prompt] for prompt in prompts]) for table in tables]
    value, means = mean(of_prompts), resampled(of_prompts)
    if len(tables) == 1:
        cut = BOOTSTRAP // 40
        return Interval(value, means[cut], means[-cut - 1], len(prompts), 1)
    by_prompt, of_seed = variance(means), variance(of_seeds) / len(tables)
    total = by_prompt + of_seed
    if total == 0:
        return Interval(value, value, value, len(prompts), len(tables))
    freedom = total**2 / (by_prompt**2 / max(len(prompts) - 1, 1) + of_seed**2 / (len(tables) - 1))
    half = student(freedom) * math.sqrt(total)
    return Interval(value, value - half, value + half, len(prompts), len(tables))


def difference(left: dict, right: dict) -> Interval | None:
    """left - right, seed by seed and prompt by prompt, of what both have."""
    pairs = {seed: (left[seed], right[seed]) for seed in left if seed in right}
    return interval({
        seed: {prompt: one[prompt] - other[prompt] for prompt in one if prompt in other}
        for seed, (one, other) in pairs.items()
    })


def agreement(left: list, right: list) -> tuple[float, float | None]:
    """The share of items with the same verdict, and Cohen's kappa; no kappa where a judge has one verdict only."""
    same = mean([float(one == other) for one, other in zip(left, right, strict=True)])
    by_chance = math.fsum(
        left.count(verdict) * right.count(verdict) / len(left) ** 2 for verdict in set(left) | set(right)
    )
    return same, None if by_chance == 1 else (same - by_chance) / (1 - by_chance)


def agreements(items: list[list[tuple]]) -> tuple[Interval, Interval | None]:
    """The same two with intervals: items by prompt, prompts are resampled with all of theirs."""

    def of(prompts: list[list[tuple]]) -> tuple[float, float | None]:
        left, right = zip(*(pair for prompt in prompts for pair in prompt), strict=True)
        return agreement(list(left), list(right))

    draw, cut = random.Random(0), BOOTSTRAP // 40
    drawn = [of(draw.choices(items, k=len(items))) for _ in range(BOOTSTRAP)]
    found = []
    for value, means in zip(of(items), zip(*drawn, strict=True), strict=True):
        known = sorted(number for number in means if number is not None)
        whole = value is not None and len(known) == BOOTSTRAP
        found.append(Interval(value, known[cut], known[-cut - 1], len(items), 1) if whole else None)
    return found[0], found[1]


def best_of(scores: list[float], n: int) -> float:
    """The expected best of n scores drawn without replacement: a mean over all subsets."""
    ordered = sorted(scores)
    total = math.comb(len(ordered), n)
    return math.fsum(score * math.comb(rank, n - 1) for rank, score in enumerate(ordered)) / total
