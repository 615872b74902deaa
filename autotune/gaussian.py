"""A Gaussian process over the positions of a finite space, as a sampler of optuna.

Optuna's own takes half a second for a suggestion, most of it to search a continuum for the largest improvement. A
space of tile sizes is a grid: here the expected improvement is evaluated on unseen points of it, all at once, in
milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

CANDIDATES = 256  # points at which the improvement is evaluated
POINTS = 96  # trials the process is conditioned on: the best half and the latest
GUESSES = 8  # hyperparameters tried per fit, around the last ones
REFIT = 1.1  # growth of the number of points after which they are fitted again
_JITTER = 1e-6


class Process:
    """Zero mean, Matérn 5/2 covariance with a length scale per dimension, on standardized values.

    Attributes:
        log_scales: of the length scales, and of the variance of the noise as last element.
    """

    def __init__(self, dimensions: int, rng: np.random.Generator) -> None:
        self.log_scales = np.array([math.log(0.5)] * dimensions + [math.log(1e-3)])
        self._rng = rng
        self._fitted = 0

    def condition(self, x: np.ndarray, y: np.ndarray) -> None:
        """Take on points in the unit cube (n, d) and their values (n,)."""
        self._x = x
        self._y = (y - y.mean()) / (y.std() or 1.0)
        if len(x) >= REFIT * self._fitted:
            self._fitted = len(x)
            for _ in range(2 if self._fitted > x.shape[1] else 0):
                around = self.log_scales + self._rng.normal(0, 0.7, (GUESSES // 2, len(self.log_scales)))
                tried = np.vstack([self.log_scales, np.clip(around, math.log(1e-4), math.log(5.0))])
                self.log_scales = tried[int(np.argmax([self._likelihood(s) for s in tried]))]
        self._half, self._weights = self._factors(self.log_scales)

    def improvement(self, x: np.ndarray) -> np.ndarray:
        """Expected improvement of points (m, d) over the lowest value."""
        across = self._half @ _matern(self._x, x, np.exp(self.log_scales[:-1]))
        mean = across.T @ self._weights
        deviation = np.sqrt(np.maximum(1.0 - np.sum(across**2, axis=0), 1e-12))
        z = (self._y.min() - mean) / deviation
        below = np.fromiter((0.5 * math.erfc(-v / math.sqrt(2.0)) for v in z), float, len(z))
        return deviation * (z * below + np.exp(-0.5 * z**2) / math.sqrt(2.0 * math.pi))

    def _factors(self, log_scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The inverse of the covariance's Cholesky factor, and its product with the values."""
        covariance = _matern(self._x, self._x, np.exp(log_scales[:-1]))
        covariance[np.diag_indices(len(covariance))] += math.exp(log_scales[-1]) + _JITTER
        half = np.linalg.inv(np.linalg.cholesky(covariance))
        return half, half @ self._y

    def _likelihood(self, log_scales: np.ndarray) -> float:
        """Logarithm, up to a constant, with a weak prior that keeps few points from claiming too much."""
        half, weights = self._factors(log_scales)
        prior = -0.5 * float(np.sum(((log_scales[:-1] - math.log(0.5)) / 1.5) ** 2))
        return float(np.sum(np.log(np.diag(half))) - 0.5 * weights @ weights) + prior


def _matern(a: np.ndarray, b: np.ndarray, scales: np.ndarray) -> np.ndarray:
    a, b = a / scales, b / scales
    squares = np.sum(a**2, axis=1)[:, None] + np.sum(b**2, axis=1)[None, :] - 2.0 * (a @ b.T)
    r = np.sqrt(5.0 * np.maximum(squares, 0.0))
    return (1.0 + r + r**2 / 3.0) * np.exp(-r)


class GaussianSampler(BaseSampler):
    """Suggests the point of largest expected improvement among unseen ones, after random ones to start with.

    Rejected configurations count as the worst that was accepted. Several figures are reduced to the largest, weighted
    anew at random for every suggestion (ParEGO), which over time covers their front. Names are a dimension for each
    value. Parameters that are absent from some trials are drawn at random.
    """

    def __init__(self, seed: int, startup: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._random = RandomSampler(seed=seed)
        self._startup = startup
        self._shared = IntersectionSearchSpace(include_pruned=True)
        self._process: Process | None = None

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {n: d for n, d in self._shared.calculate(study).items() if not d.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        told = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        accepted = [t for t in told if t.state is TrialState.COMPLETE]
        if len(accepted) < self._startup or not search_space:
            return {}
        names = list(search_space)
        counts = [_count(search_space[n]) for n in names]
        points = np.array([[t.params[n] for n in names] for t in told])
        values = self._values(told)
        kept = _kept(values)
        scaled = _scaled(search_space, counts)
        if self._process is None or len(self._process.log_scales) != len(scaled(points[:1])[0]) + 1:
            self._process = Process(len(scaled(points[:1])[0]), self._rng)
        self._process.condition(scaled(points[kept]), values[kept])
        candidates = self._candidates(points, values, counts)
        if not len(candidates):
            return {}
        best = candidates[int(np.argmax(self._process.improvement(scaled(candidates))))]
        return {n: int(p) for n, p in zip(names, best, strict=True)}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _values(self, told: Sequence[FrozenTrial]) -> np.ndarray:
        """One figure per trial, on a logarithmic scale where it can be: figures of kernels differ by factors."""
        accepted = np.array([t.values for t in told if t.state is TrialState.COMPLETE])
        figures = np.log(accepted) if np.all(accepted > 0) else accepted
        if figures.shape[1] > 1:
            span = figures.max(axis=0) - figures.min(axis=0)
            unit = (figures - figures.min(axis=0)) / np.where(span > 0, span, 1.0)
            weighted = unit * self._rng.dirichlet(np.ones(figures.shape[1]))
            reduced = weighted.max(axis=1) + 0.05 * weighted.sum(axis=1)
        else:
            reduced = figures[:, 0]
        values = np.full(len(told), reduced.max())
        values[[t.state is TrialState.COMPLETE for t in told]] = reduced
        return values

    def _candidates(self, points: np.ndarray, values: np.ndarray, counts: Sequence[int]) -> np.ndarray:
        """Unseen points: the whole space if it is small, else points at random and those around the best."""
        if math.prod(counts) <= CANDIDATES:
            drawn = np.indices(counts).reshape(len(counts), -1).T
        else:
            leading = points[np.argsort(values, kind="stable")[:8]]
            anywhere = self._rng.integers(0, counts, (CANDIDATES // 2, len(counts)))
            around = leading[self._rng.integers(0, len(leading), CANDIDATES // 2)].copy()
            steps = self._rng.integers(-2, 3, around.shape)
            around = np.clip(around + steps, 0, np.array(counts) - 1)
            drawn = np.unique(np.vstack([anywhere, around]), axis=0)
        seen = {p.tobytes() for p in points.astype(np.int64)}
        return np.array([p for p in drawn.astype(np.int64) if p.tobytes() not in seen])


def _kept(values: np.ndarray) -> np.ndarray:
    """Which trials to condition on."""
    if len(values) <= POINTS:
        return np.arange(len(values))
    best = np.argsort(values, kind="stable")[: POINTS // 2]
    return np.union1d(best, np.arange(len(values) - POINTS // 2, len(values)))


def _count(distribution: BaseDistribution) -> int:
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    return getattr(distribution, "high", 0) + 1


def _scaled(space: dict[str, BaseDistribution], counts: Sequence[int]) -> Any:
    """Positions (n, parameters) to the unit cube (n, dimensions)."""

    def scale(points: np.ndarray) -> np.ndarray:
        columns = []
        for index, (distribution, count) in enumerate(zip(space.values(), counts, strict=True)):
            column = points[:, index]
            if isinstance(distribution, CategoricalDistribution):
                columns += [(column == value).astype(float) for value in range(count)]
            else:
                columns.append(column / (count - 1.0))
        return np.stack(columns, axis=1)

    return scale
