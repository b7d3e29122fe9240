"""What measured kernels add to a cost model: a factor learnt from what it leaves over.

A cost model prices a family with a dozen constants. What remains, log(measured / priced), has
steps in it: a library changes its kernel at 64 rows, a ragged tile costs more than a full one. Sums
of small decision trees follow steps better than a smooth interpolation does. On products of the
AIConfigurator tables, sites left out, median error in per cent (TensorRT-LLM and SGLang; bf16, fp8,
fp8_block):

    constants alone          4.5  3.1  4.8    6.5  10.8  9.1
    weighted neighbours      3.3  2.1  3.3    5.9   7.2  8.4
    local kriging            3.1  1.9  2.6    5.7   6.3  7.4
    trees                    2.8  1.7  3.0    5.6   5.7  6.4

The trees are boosted (Friedman, Annals of Statistics 29, 2001): each is fitted to what those before
it left over, clipped so that one glitch moves little, and adds a part of it. They are oblivious
(one question a level, Kohavi 1994; CatBoost, arXiv 1706.09516 §3), so that many shapes are asked
all questions at once. A leaf is the mean of its rows and of a few that say there is nothing to add.

Outside the box that the rows lie in the factor goes to 1, as exp(-distance^2 / 2).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hwmodels.arrays import Floats, Ints
from hwmodels.errors import CalibrationError

TREES, STEP = 150, 0.15
"""How many, and the part of what is left over that one of them takes."""
LEVELS_MAX, LEAF_ROWS = 6, 8
"""Questions of a tree: as many as leave that many rows to a leaf, were they spread evenly."""
POINTS = 512
"""That are asked at once: their places in all trees stay in the cache of a core."""
EDGES = 63
"""Places of one feature where a question can be asked: its quantiles."""
CLIP = 0.15
"""Largest log ratio that one tree looks at."""
SILENT_ROWS = 5.0
"""Rows of every leaf that say there is nothing to add."""


@dataclass(frozen=True, eq=False)
class Residual:
    """Measured rows of one family, and what they add to a price.

    Attributes:
        features: (rows, d) where they lie, by the cost model's `features`, a distance of 1 being
            another shape.
        log_ratio: (rows,) log(measured / priced).

    Raises:
        CalibrationError: no rows, or one that is not finite.
    """

    features: Floats
    log_ratio: Floats

    def __post_init__(self) -> None:
        rows = len(self.log_ratio)
        if not rows or self.features.shape[:1] != (rows,):
            raise CalibrationError(
                f"residual: must have as many features as ratios, and some; got "
                f"{len(self.features)} and {rows}"
            )
        if not (np.isfinite(self.features).all() and np.isfinite(self.log_ratio).all()):
            raise CalibrationError("residual: features and ratios must be finite numbers")

    @cached_property
    def _trees(self) -> "_Trees":
        return _grow(self.features, self.log_ratio)

    def factor(self, features: Floats) -> Floats:
        """Return (points,) what prices are multiplied by at `features` (points, d)."""
        low, high = self.features.min(axis=0), self.features.max(axis=0)
        outside = np.maximum(np.maximum(low - features, features - high), 0.0)
        nearness = np.exp(-0.5 * (outside**2).sum(axis=1))
        return np.asarray(np.exp(nearness * self._trees.at(features)))


class _Trees(NamedTuple):
    """Trees of `levels` questions "is this feature beyond that edge?".

    Attributes:
        edges: by feature, where it can be split.
        feature, edge: (trees, levels) what is asked.
        leaf: (trees, 2^levels) what is added; the answers are the digits of its place.
    """

    edges: list[Floats]
    feature: Ints
    edge: npt.NDArray[np.uint8]
    leaf: Floats

    def at(self, features: Floats) -> Floats:
        """Return (points,) the sum of the trees."""
        bins, (trees, leaves) = _bins(self.edges, features), self.leaf.shape
        first = np.arange(trees)[:, None] * leaves
        total = np.empty(len(features))
        for start in range(0, len(features), POINTS):
            some = bins[:, start : start + POINTS]
            place = np.zeros((trees, some.shape[1]), np.uint8)
            for feature, edge in zip(self.feature.T, self.edge.T, strict=True):
                place = 2 * place + (some[feature] > edge[:, None])
            total[start : start + POINTS] = self.leaf.take(first + place).sum(axis=0)
        return total


def _bins(edges: list[Floats], features: Floats) -> npt.NDArray[np.uint8]:
    """Return (d, points) how many edges of its feature each value is beyond."""
    return np.stack(
        [
            np.searchsorted(of_feature, values).astype(np.uint8)
            for of_feature, values in zip(edges, features.T, strict=True)
        ]
    )


def _grow(features: Floats, log_ratio: Floats) -> _Trees:
    rows = len(log_ratio)
    levels = int(np.clip(np.log2(max(rows / LEAF_ROWS, 2)), 1, LEVELS_MAX))
    edges = [_edges(values) for values in features.T]
    bins = _bins(edges, features).astype(np.int64)
    trees = _Trees(
        edges,
        np.zeros((TREES, levels), np.int64),
        np.zeros((TREES, levels), np.uint8),
        np.zeros((TREES, 2**levels)),
    )
    known = np.zeros(rows, np.float64)
    for tree in range(TREES):
        left_over = np.clip(log_ratio - known, -CLIP, CLIP)
        place = np.zeros(rows, np.int64)
        for level in range(levels):
            feature, edge = _best_question(bins, place, left_over)
            trees.feature[tree, level], trees.edge[tree, level] = feature, edge
            place = 2 * place + (bins[feature] > edge)
        total = np.bincount(place, left_over, minlength=2**levels)
        count = np.bincount(place, minlength=2**levels)
        trees.leaf[tree] = STEP * total / (count + SILENT_ROWS)
        known += trees.leaf[tree, place]
    return trees


def _edges(values: Floats) -> Floats:
    """Return where a feature can be split: between two of its values, near its quantiles."""
    distinct = np.unique(values)
    quantiles = np.quantile(values, np.linspace(0, 1, EDGES + 2)[1:-1], method="lower")
    places = np.searchsorted(distinct, np.unique(quantiles[quantiles < distinct[-1]]))
    return np.asarray((distinct[places] + distinct[places + 1]) / 2)


def _best_question(bins: Ints, place: Ints, left_over: Floats) -> tuple[int, int]:
    """Return feature and edge that split all places so that least squares are left."""
    places, width = int(place.max()) + 1, EDGES + 1
    gains = np.empty((len(bins), EDGES))
    for feature, of_feature in enumerate(bins):
        cell = place * width + of_feature
        total = np.bincount(cell, left_over, minlength=places * width).reshape(places, width)
        count = np.bincount(cell, minlength=places * width).reshape(places, width)
        below, few = total.cumsum(axis=1), count.cumsum(axis=1)
        above, many = below[:, -1:] - below, few[:, -1:] - few
        gain = below**2 / (few + SILENT_ROWS) + above**2 / (many + SILENT_ROWS)
        gains[feature] = gain.sum(axis=0)[:EDGES]
    feature, edge = divmod(int(gains.argmax()), EDGES)
    return feature, edge
