"""Seconds for layers: what one layer costs on every rank of an expert group.

A segment is the run of kernels between two points where communication may start, so a layer has
two (`attn`, `mlp`) in each phase, and an exchange between them where tokens are routed.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.price.collectives import ExchangePricer
from simulator.price.kernels import KernelPricer
from workloads.layers import Layer, Phase
from workloads.ops import Exchange, Op

Floats = NDArray[np.float64]
SegmentName = tuple[str, Phase]
PHASES: tuple[Phase, ...] = ("F", "B", "W")


@dataclass(frozen=True, slots=True)
class SegmentCost:
    """A fused run of work.

    Attributes:
        duration_s: (ranks,) seconds alone on its SMs.
        beside_factor: slowdown when all of it runs beside the other stream's work.
    """

    duration_s: Floats
    beside_factor: float = 1.0

    @property
    def empty(self) -> bool:
        """True where there is nothing to run."""
        return not self.duration_s.any()


@dataclass(frozen=True, slots=True)
class ExchangeCost:
    """Dispatch and combine of one phase; `*_glue` runs on the communication stream before them.

    Forward: dispatch, then combine. Backward: `first` carries gradients to the experts on
    dispatch kernels, `second` brings them home on combine kernels.
    """

    first: SegmentCost
    first_glue: SegmentCost
    second: SegmentCost


@dataclass(frozen=True, slots=True)
class PricedLayer:
    """One layer on all ranks of a group: segments by phase, exchanges by direction."""

    kind: str
    attn: dict[Phase, SegmentCost]
    mlp: dict[Phase, SegmentCost]
    forward_exchange: ExchangeCost | None
    backward_exchange: ExchangeCost | None


class OpSeconds(NamedTuple):
    """One op of a whole step: what its price rests on, and the seconds all its runs take."""

    op: Op
    basis: str
    seconds: float


@dataclass(frozen=True)
class LayerPricer:
    """Prices layers on the ranks of one expert group."""

    kernels: KernelPricer
    exchanges: ExchangePricer

    def price(self, layer: Layer, load: Floats) -> PricedLayer:
        """Return the costs of `layer`.

        Args:
            load: (ranks,) expert load of each rank relative to balanced, for one micro-batch.
        """
        return self.price_all([layer], load[None])[0]

    def price_all(self, layers: Sequence[Layer], loads: Floats) -> tuple[PricedLayer, ...]:
        """Return the costs of many layers, each at its own loads; every kernel is priced once.

        Args:
            loads: (layers, ranks) expert load of each rank relative to balanced.
        """
        distinct = _places(layers)
        segments = [_segments(layers[alike[0]]) for alike in distinct]
        ops = list(
            dict.fromkeys(op for each in segments for named in each.values() for op in named)
        )
        place = {op: index for index, op in enumerate(ops)}
        costs = self.kernels.price(ops, loads.ravel())
        columns = np.arange(loads.size).reshape(loads.shape)
        priced: dict[int, PricedLayer] = {}
        for alike, each in zip(distinct, segments, strict=True):
            runs = {
                name: costs.run([place[op] for op in named], columns[alike])
                for name, named in each.items()
            }
            for row, index in enumerate(alike):
                own = {
                    name: SegmentCost(seconds[row], float(factor[row]))
                    for name, (seconds, factor) in runs.items()
                }
                priced[index] = self._layer(layers[index], loads[index], own)
        return tuple(priced[index] for index in range(len(layers)))

    def op_seconds(self, steps: Sequence[tuple[Layer, Phase, int]]) -> list[OpSeconds]:
        """Return compute seconds at balanced load, op by op.

        Args:
            steps: a layer, a phase of it, and how often that is run.
        """
        times: Counter[Op] = Counter()
        for alike in _places([layer for layer, _, _ in steps]):
            layer = steps[alike[0]][0]
            for phase in PHASES:
                count = sum(steps[index][2] for index in alike if steps[index][1] == phase)
                for op in layer.attn.of(phase) + layer.mlp.of(phase):
                    times[op] += count
        costs = self.kernels.price(list(times))
        once = (costs.duration_s[:, 0] + costs.gap_s).tolist()
        return [
            OpSeconds(op, basis, count * seconds)
            for (op, count), basis, seconds in zip(times.items(), costs.basis, once, strict=True)
        ]

    def _layer(
        self, layer: Layer, load: Floats, cost: Mapping[SegmentName, SegmentCost]
    ) -> PricedLayer:
        forward = backward = None
        if layer.exchange is not None:
            forward, backward = self._exchange(layer.exchange, load, cost)
        return PricedLayer(
            layer.kind,
            attn={phase: cost["attn", phase] for phase in PHASES},
            mlp={phase: cost["mlp", phase] for phase in PHASES},
            forward_exchange=forward,
            backward_exchange=backward,
        )

    def _exchange(
        self, exchange: Exchange, load: Floats, cost: Mapping[SegmentName, SegmentCost]
    ) -> tuple[ExchangeCost, ExchangeCost]:
        rates = self.exchanges.rates
        dispatch = SegmentCost(
            np.full(len(load), self.exchanges.exchange_s(exchange, "dispatch", load)),
            rates.dispatch_beside_compute,
        )
        combine = SegmentCost(
            np.full(len(load), self.exchanges.exchange_s(exchange, "combine", load)),
            rates.combine_beside_compute,
        )
        return (
            ExchangeCost(dispatch, cost["glue", "F"], combine),
            ExchangeCost(dispatch, cost["glue", "B"], combine),
        )


def _places(layers: Sequence[Layer]) -> list[list[int]]:
    """Return where each distinct layer stands in `layers`."""
    distinct: list[list[int]] = []
    for index, layer in enumerate(layers):
        alike = next((places for places in distinct if layers[places[0]] == layer), None)
        if alike is None:
            distinct.append([index])
        else:
            alike.append(index)
    return distinct


def _segments(layer: Layer) -> dict[SegmentName, tuple[Op, ...]]:
    """Return the ops of a layer by half and phase; `glue` is what its exchanges run first."""
    halves = (("attn", layer.attn), ("mlp", layer.mlp))
    segments = {(name, phase): half.of(phase) for name, half in halves for phase in PHASES}
    if layer.exchange is not None:
        segments["glue", "F"] = layer.exchange.dispatch_glue
        segments["glue", "B"] = layer.exchange.combine_backward_glue
    return segments
