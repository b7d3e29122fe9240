"""Seconds for layers: what one layer costs on every rank of an expert group.

A segment is the run of kernels between two points where communication may start, so a layer has
two (`attn`, `mlp`) in each phase, and an exchange between them where tokens are routed.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.price.collectives import ExchangePricer
from simulator.price.kernels import KernelPricer
from workloads.layers import Layer, Phase, PhaseOps
from workloads.ops import Exchange, Op

Floats = NDArray[np.float64]
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
        forward = backward = None
        if layer.exchange is not None:
            forward, backward = self._exchange(layer.exchange, load)
        return PricedLayer(
            layer.kind,
            attn=self._half(layer.attn, load),
            mlp=self._half(layer.mlp, load),
            forward_exchange=forward,
            backward_exchange=backward,
        )

    def seconds_by_basis(self, layer: Layer, phase: Phase) -> dict[str, float]:
        """Return compute seconds of a balanced layer in one phase, by what they rest on."""
        total: dict[str, float] = {}
        costs = self.kernels.price(layer.attn.of(phase) + layer.mlp.of(phase))
        for basis, seconds in zip(costs.basis, costs.duration_s[:, 0] + costs.gap_s, strict=True):
            total[basis] = total.get(basis, 0.0) + float(seconds)
        return total

    def _half(self, half: PhaseOps, load: Floats) -> dict[Phase, SegmentCost]:
        return {phase: self._segment(half.of(phase), load) for phase in PHASES}

    def _segment(self, ops: tuple[Op, ...], load: Floats) -> SegmentCost:
        if not ops:
            return SegmentCost(np.zeros(len(load)))
        costs = self.kernels.price(ops, load)
        return SegmentCost(costs.total_s, costs.mean_beside_factor)

    def _exchange(self, exchange: Exchange, load: Floats) -> tuple[ExchangeCost, ExchangeCost]:
        rates = self.exchanges.rates
        dispatch = SegmentCost(
            np.full(len(load), self.exchanges.exchange_s(exchange, "dispatch", load)),
            rates.dispatch_beside_compute,
        )
        combine = SegmentCost(
            np.full(len(load), self.exchanges.exchange_s(exchange, "combine", load)),
            rates.combine_beside_compute,
        )
        forward_glue = self._segment(exchange.dispatch_glue, load)
        backward_glue = self._segment(exchange.combine_backward_glue, load)
        return (
            ExchangeCost(dispatch, forward_glue, combine),
            ExchangeCost(dispatch, backward_glue, combine),
        )
