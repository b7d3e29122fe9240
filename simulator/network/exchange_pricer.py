"""Dispatch and combine of expert groups at any loads of their ranks, many at once.

An exchange is as slow as its slowest port. Of the copies of a token on `n` nodes, all but the one
at home cross a NIC, once per node; on arrival the same-index GPU forwards them over NVLink to the
GPUs that want them (ISCA'25 "Insights into DeepSeek-V3", arXiv 2505.09343 §4.3). So

    t_port = max(nic_bytes / nic_rate, nvlink_bytes / nvlink_rate)
    t      = latency + notify + max over ports

A NIC port sends and receives at once. Switches that copy or sum tokens take bytes off one of these
directions only (`simulator.network.group_ports`); `lighter_s` has what is left of it. SMs that code
what is combined lengthen the time in which it moves by a share of it, `codec_overhead`; NICs and
NVLink are not busy for longer.

Where all that take part sit on one node, no NIC carries anything; one GPU by itself moves nothing
and takes no time. `simulator.network.expert_exchange` has the same for a matrix of who sends what
to whom, and plays it as flows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal, get_args

import numpy as np

from hwmodels.arrays import Floats, Ints
from hwmodels.cluster import ClusterSpec
from hwmodels.costs.exchange import Direction
from hwmodels.errors import SpecError
from hwmodels.fabrics import FabricSpec, SwitchedFabric
from hwmodels.identity import Same
from hwmodels.library import LibrarySpec
from simulator.network.comm_times import AS_PRICED, CommTimes, Slow
from simulator.network.group_ports import GroupPorts
from simulator.network.machine import Machine
from simulator.network.port_rates import PortRates, exchange_rates, link_scales
from simulator.network.slowest_port import port_times
from workloads.ops import Comm
from workloads.routing import RoutingStatistics

NEEDED = (
    "exchange",
    "exchange.dispatch_nic_bytes_per_s",
    "exchange.combine_nic_bytes_per_s",
    "exchange.forwarding_nvlink_bytes_per_s",
    "exchange.saturating_sms",
    "exchange.dispatch_beside_compute",
    "exchange.combine_beside_compute",
    "link_nic_bytes_per_s",
    "link_nvlink_bytes_per_s",
    "message_nic_bytes_per_s",
    "nvlink_bytes_per_s",
)
"""What training asks of a library, and a library may lack."""


@dataclass(frozen=True, slots=True, eq=False)
class ExchangeRates:
    """What exchanges achieve.

    Attributes:
        ports: by direction and nodes of a group.
        dispatch_beside_compute, combine_beside_compute: slowdown of each beside compute kernels.
        basis: what all rates of communication rest on, in words.
    """

    ports: Mapping[tuple[Direction, int], PortRates]
    dispatch_beside_compute: float = 1.0
    combine_beside_compute: float = 1.0
    basis: str = ""

    @classmethod
    def of(cls, machine: Machine, nodes: Iterable[int]) -> "ExchangeRates":
        """Return what groups on so many nodes achieve.

        Raises:
            SpecError: the library says nothing of the expert exchange, or of plain messages.
        """
        cluster, library = machine.cluster, machine.library
        if library is not None:
            check_library(library)
        topology = machine.wires.topology
        ports = {
            (direction, count): exchange_rates(
                direction, count, cluster, library, machine.sms, topology
            )
            for direction in get_args(Direction)
            for count in dict.fromkeys(nodes)
        }
        exchange = library.exchange if library else None
        dispatch = exchange.dispatch_beside_compute if exchange else None
        combine = exchange.combine_beside_compute if exchange else None
        return cls(ports, dispatch or 1.0, combine or 1.0, _basis(cluster, library))

    def slowed(self, slow: float) -> "ExchangeRates":
        """Return what is achieved on NICs that take so much longer."""
        ports = {
            key: replace(rates, nic_bytes_per_s=rates.nic_bytes_per_s / slow)
            for key, rates in self.ports.items()
        }
        return replace(self, ports=ports)


def check_library(library: LibrarySpec) -> None:
    """Refuse a library that does not say what training needs.

    Raises:
        SpecError: it does not.
    """
    for path in NEEDED:
        owner, _, name = path.rpartition(".")
        if getattr(library.exchange if owner else library, name) is None:
            raise SpecError(
                f"profile.communication: library {library.name} must have {path} for training, "
                f"got none"
            )


def _basis(cluster: ClusterSpec, library: LibrarySpec | None) -> str:
    behind = ", NICs as fast as PCIe feeds them" if cluster.node.pcie_binds else ""
    if library is None:
        return f"datasheet rates of the links{behind}"
    nic_scale, nvlink_scale = link_scales(library, cluster, spans=True)
    return (
        "achieved rates of the profile"
        + ("" if nic_scale == 1 else f", NICs scaled by {nic_scale:g}")
        + ("" if nvlink_scale == 1 else f", NVLink by {nvlink_scale:g}")
        + behind
    )


ExchangePart = Literal["seconds", "moving_s", "nic_s", "lighter_s"]
"""Which seconds are asked for: all, or of these those in which bytes move, or that NICs need, in
their fuller direction or in the one of which switches take work.
"""


@lru_cache(maxsize=256)
def _ports(routing: RoutingStatistics, once: bool = False) -> GroupPorts:
    return GroupPorts.of(routing, once)


def once_on_nics(fabric: FabricSpec) -> tuple[Direction, ...]:
    """Return the kinds of exchange whose tokens a fabric copies, or sums, in its switches."""
    if not isinstance(fabric, SwitchedFabric):
        return ()
    able: dict[Direction, bool] = {"dispatch": fabric.multicast, "combine": fabric.reduction}
    return tuple(direction for direction, is_able in able.items() if is_able)


@dataclass(frozen=True, slots=True)
class ExchangePricer:
    """Prices dispatch and combine of expert groups.

    Attributes:
        layouts: ports of a group, for each way in which groups lie over nodes.
        part: which seconds `exchange_s` returns.
        once: the same layouts for kinds of exchange whose tokens switches copy or sum.
        codec_overhead: by which coding by SMs lengthens a combine, of the time in which it moves.
        sent: share of a rank's own copies that leave it: below 1 where experts drop some, above
            where they pad.
    """

    rates: ExchangeRates
    layouts: tuple[GroupPorts, ...]
    part: ExchangePart = "seconds"
    once: Mapping[Direction, tuple[GroupPorts, ...]] = field(default_factory=dict)
    codec_overhead: float = 0.0
    sent: float = 1.0

    @classmethod
    def of(cls, machine: Machine) -> "ExchangePricer":
        """Return the prices of groups that lie as the routing of `machine` says.

        Raises:
            SpecError: as `ExchangeRates.of`.
        """
        layouts = tuple(map(_ports, machine.routing))
        rates = ExchangeRates.of(machine, [ports.nodes for ports in layouts])
        once = {
            direction: tuple(_ports(routing, True) for routing in machine.routing)
            for direction in once_on_nics(machine.cluster.fabric)
        }
        return cls(rates, layouts, once=once)

    def exchange_s(
        self,
        comm: Comm,
        load: Floats,
        nic_slowdown: Floats | float = 1.0,
        nvlink_slowdown: Floats | float = 1.0,
        layout: Ints | None = None,
    ) -> Floats:
        """Return (...) seconds of all-to-alls; arguments as `times`."""
        times = self.times(comm, load, Slow(nic_slowdown, nvlink_slowdown), layout)
        return np.asarray(getattr(times, self.part))

    def times(
        self, comm: Comm, load: Floats, slow: Slow = AS_PRICED, layout: Ints | None = None
    ) -> CommTimes:
        """Return (...) seconds of all-to-alls, in parts.

        Args:
            comm: a dispatch or a combine.
            load: (..., ep) tokens each rank receives (combine: sends), relative to balanced.
            slow: of each rank's NIC and NVLink; broadcast with `load`. The other direction of a
                port carries a rank's own tokens, a load of `sent`.
            layout: (...) which of `layouts` each group has; left out, a group stands for all of
                them and is as slow as the slowest.
        """
        direction: Direction = "dispatch" if comm.kind == "dispatch" else "combine"
        ports_of = self.once.get(direction, self.layouts)
        layouts = [self._on(ports, comm, load, slow, direction) for ports in ports_of]
        if len(layouts) == 1:
            return layouts[0]
        seconds = np.stack([times.seconds for times in layouts])
        chosen = seconds.argmax(axis=0) if layout is None else layout
        place = np.broadcast_to(chosen, seconds.shape[1:])[None]
        columns = (
            np.stack([np.broadcast_to(getattr(times, name), place.shape[1:]) for times in layouts])
            for name in ("latency_s", "nic_s", "nvlink_s", "in_turn_s")
        )
        times = CommTimes(*(np.take_along_axis(each, place, axis=0)[0] for each in columns))
        if direction not in self.once:
            return times
        lighter_s = np.stack([each.lighter_s for each in layouts])
        return replace(times, spared_s=np.take_along_axis(lighter_s, place, axis=0)[0])

    def _on(
        self, ports: GroupPorts, comm: Comm, load: Floats, slow: Slow, direction: Direction
    ) -> CommTimes:
        if ports.ranks == 1:
            nothing = np.zeros(load.shape[:-1])
            return CommTimes(nothing, nothing, nothing)
        nic, nvlink = _copies(ports, load, slow, self.sent)
        rates = self.rates.ports[direction, ports.nodes]
        times = port_times(nic, nvlink, comm.token_bytes, rates, comm.nvlink_token_bytes)
        if direction == "combine" and self.codec_overhead:
            times = replace(times, in_turn_s=self.codec_overhead * times.moving_s)
        if direction not in self.once:
            return times
        sent = self.sent * ports.nic * (ports.nic_sent * slow.nic).max(axis=-1)
        lighter_s = port_times(sent, 0.0, comm.token_bytes, rates).nic_s
        return replace(times, spared_s=np.broadcast_to(lighter_s, nic.shape))


def _copies(ports: GroupPorts, load: Floats, slow: Slow, share: float) -> tuple[Floats, Floats]:
    """Return (...) copies of a token through the slowest NIC, and the slowest NVLink, of groups.

    Those on links as priced are kept with a load that cannot change: many machines meet it, and a
    dispatch and a combine do.
    """
    as_priced = not (isinstance(slow.nic, np.ndarray) or isinstance(slow.nvlink, np.ndarray))
    if as_priced and slow == AS_PRICED and not load.flags.writeable:
        return _kept_copies(Same(ports), Same(load), share)
    return _through_slowest(ports, load, slow, share)


@lru_cache(maxsize=8)
def _kept_copies(ports: Same, load: Same, share: float) -> tuple[Floats, Floats]:
    return _through_slowest(ports.value, load.value, AS_PRICED, share)


def _through_slowest(
    ports: GroupPorts, load: Floats, slow: Slow, share: float
) -> tuple[Floats, Floats]:
    nvlink = ports.nvlink * (ports.nvlink_load(load, share) * slow.nvlink).max(axis=-1)
    nic = np.zeros(nvlink.shape)
    if ports.nodes > 1:
        nic = ports.nic * (ports.nic_load(load, share) * slow.nic).max(axis=-1)
    return nic, nvlink
