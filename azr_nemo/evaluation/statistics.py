"""What can be said of a benchmark score: pass@k from several samples, and how far a mean over items may be from the truth."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
CHUNK = 1 << 22  # indices drawn at once: bounds the memory of a bootstrap


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that k samples hold a right one, estimated without bias from n samples of which c were right: 1 - C(n-c, k) / C(n, k).

    As a product, which neither overflows nor cancels (Chen et al. 2021, arXiv 2107.03374). Raises ValueError unless 0 <= c <= n and 1 <= k <= n.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@{k} of {c} right among {n} samples: expected 0 <= right <= samples and 1 <= k <= samples")
    if n - c < k:
        return 1.0
    # The shorter of two ways to write the same product.
    wrong = math.prod((n - c - i) / (n - i) for i in range(k)) if k < c else math.prod((n - k - i) / (n - i) for i in range(c))
    return 1.0 - wrong


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a proportion (Wilson 1927)."""
    p, n = successes / trials, trials
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def interval(scores: Sequence[float], samples: int = 1, seed: int = 0, draws: int = 10_000) -> tuple[float, float]:
    """A 95% interval of the mean of scores in [0, 1], one per item, each the mean of `samples` samples.

    One sample per item, all right or wrong: Wilson's. Otherwise the percentile bootstrap over items: the samples of an item are not independent, so an
    item is drawn whole. Raises ValueError without scores.
    """
    if not scores:
        raise ValueError("an interval needs at least one score")
    values = np.asarray(scores, dtype=np.float64)
    if samples == 1 and np.isin(values, (0.0, 1.0)).all():
        return wilson(int(values.sum()), len(values))
    low, high = quantiles(resampled_means(values, np.random.default_rng(seed), draws))
    return max(0.0, low), min(1.0, high)


def resampled_means(values: NDArray[np.float64], random: np.random.Generator, draws: int) -> NDArray[np.float64]:
    """Means of `draws` samples with replacement of the values, each of their number."""
    step = max(1, CHUNK // len(values))
    sizes = [min(step, draws - start) for start in range(0, draws, step)]
    return np.concatenate([values[random.integers(len(values), size=(size, len(values)))].mean(axis=1) for size in sizes])


def quantiles(means: NDArray[np.float64]) -> tuple[float, float]:
    """The ends of the central 95%."""
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
