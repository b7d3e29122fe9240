"""Time of the expert exchange in normal mode: dispatch and combine with one copy a node (DeepEP).

Of the copies of a token, one for each distinct node crosses a NIC, to the GPU of the same index
there, which forwards it over NVLink to the distinct GPUs that want it (arXiv 2505.09343 §4.3;
combine goes the same way back):

    t = latency + max(channel, nic_bytes / nic_rate, nvlink_bytes / nvlink_rate)

where `channel` is what SMs need for the tokens (`hwmodels.costs.channels`). Between nodes tokens
reach the NIC chunk by chunk, and few chunks overlap little: `fill_tokens` take channels and NICs in
turn, which adds their time in the quicker of both,

    min(channel, nic) fill_tokens / (fill_tokens + tokens)

Where channels were never measured apart, rates grow with the SMs up to a saturating number.

Between nodes a `notify` kernel runs before it, in which ranks tell each other that they are ready.
It is priced without waiting: that for a rank that is late belongs to that rank, and that for a slow
NIC to the exchange before (`transfer_s` says how much of it).
"""

from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from hwmodels.arrays import Floats
from hwmodels.costs.channels import (
    SMS_PER_CHANNEL,
    ChannelWork,
    ExchangeShape,
    ForwardingWork,
)
from hwmodels.errors import InfeasibleError
from hwmodels.spec import Spec
from hwmodels.units import BytesPerSecond, Count, Parts, Seconds

Direction = Literal["dispatch", "combine"]
Slowdown = Annotated[float, Field(ge=1, le=10)]
"""Time beside the other kind of work / time alone."""


class Notify(Spec):
    """The kernel before a transfer between nodes, where no rank is late; inside one node none.

    Timed with a layout that is known: where it is new, ranks tell each other counts too, and hosts
    wait for them, which no public table times.

    Attributes:
        latency_s: between two nodes.
        node_latency_s: what each doubling of more nodes adds.
    """

    latency_s: Seconds
    node_latency_s: Seconds

    def seconds(self, nodes: npt.ArrayLike) -> Floats:
        """Return (...) seconds on so many nodes."""
        count = np.asarray(nodes, np.float64)
        grown_s = self.latency_s + self.node_latency_s * (np.log2(count) - 1)
        return np.asarray(np.where(count > 1, grown_s, 0.0))


class Crowding(Spec):
    """How the rate of a NIC falls with the NICs it sends to at once, its peers.

        rate = rate at `peers` (its peers / peers)^-rate_exponent

    In normal mode those are its like on the other nodes.

    Attributes:
        peers: with how many rates hold.
        rate_exponent: above.
    """

    peers: Parts
    rate_exponent: Annotated[float, Field(ge=0, le=1)]

    def share(self, nodes: npt.ArrayLike) -> Floats:
        """Return (...) the rate on so many nodes / the rate at `peers`."""
        peers = np.maximum(np.asarray(nodes, np.float64) - 1, 1.0)
        return np.asarray((peers / self.peers) ** -self.rate_exponent)


class SlowNic(Spec):
    """A NIC of the machine measured on that is slower than the others.

    Nobody is done with a dispatch before it has what that NIC sends. A combine leaves its tokens in
    the buffers on the way to that NIC and waits for it in the next `notify`.

    Attributes:
        nodes: groups on so many nodes, or more, had it.
        bytes_per_s: what it achieves, either direction.
        buffer_tokens: what the buffers of a channel hold on the way from one GPU to another.
    """

    nodes: Annotated[int, Field(ge=2, le=4096)]
    bytes_per_s: BytesPerSecond
    buffer_tokens: Count

    def left_behind(self, shape: ExchangeShape, sms: npt.ArrayLike) -> Floats:
        """Return (...) the share of a combine's copies for one GPU that buffers hold."""
        held = np.asarray(sms, np.float64) / SMS_PER_CHANNEL * self.buffer_tokens
        return np.asarray(np.minimum(1.0, held / shape.copies_between_gpus))


class ExchangeParameters(Spec):
    """What the expert exchange achieves; rates in bytes that cross the link, one direction.

    Attributes:
        dispatch_nic_bytes_per_s, combine_nic_bytes_per_s: of one NIC during dispatch and combine;
            None where it was measured inside one node only.
        nvlink_bytes_per_s: of one GPU's NVLink, inside a node only.
        forwarding_nvlink_bytes_per_s: the same while it forwards what NICs receive.
        crowding: how NIC rates fall with the nodes of a group; None where that was not measured.
        slow_nic: one that is slower, on the machine measured on.
        saturating_sms: SMs given to communication above which its rate grows no more.
        dispatch_work, combine_work: of channels, in place of `saturating_sms`.
        dispatch_forwarding, combine_forwarding: of channels between nodes; None where they were
            measured inside one.
        dispatch_notify, combine_notify: before a transfer between nodes; None where not measured.
        dispatch_beside_compute, combine_beside_compute: slowdown of the transfer while compute
            kernels run on the other SMs; None where not measured.
    """

    dispatch_nic_bytes_per_s: BytesPerSecond | None = None
    combine_nic_bytes_per_s: BytesPerSecond | None = None
    nvlink_bytes_per_s: BytesPerSecond
    forwarding_nvlink_bytes_per_s: BytesPerSecond | None = None
    crowding: Crowding | None = None
    slow_nic: SlowNic | None = None
    saturating_sms: Parts | None = None
    dispatch_work: ChannelWork | None = None
    combine_work: ChannelWork | None = None
    dispatch_forwarding: ForwardingWork | None = None
    combine_forwarding: ForwardingWork | None = None
    dispatch_notify: Notify | None = None
    combine_notify: Notify | None = None
    dispatch_beside_compute: Slowdown | None = None
    combine_beside_compute: Slowdown | None = None

    @model_validator(mode="after")
    def _sms_count_one_way(self) -> "ExchangeParameters":
        has_work = (self.dispatch_work is not None, self.combine_work is not None)
        if has_work != ((self.saturating_sms is None,) * 2):
            raise ValueError(
                "must have saturating_sms, or both dispatch_work and combine_work, "
                f"got saturating_sms {self.saturating_sms} and work {has_work}"
            )
        return self

    @model_validator(mode="after")
    def _channels_work_where_nics_do(self) -> "ExchangeParameters":
        between = self.saturating_sms is None and self.dispatch_nic_bytes_per_s is not None
        has = (self.dispatch_forwarding is not None, self.combine_forwarding is not None)
        if has != (between,) * 2:
            raise ValueError(
                "must have dispatch_forwarding and combine_forwarding with NIC rates and work of "
                f"channels, and only then, got {has}"
            )
        return self

    def work(self, direction: Direction) -> ChannelWork | None:
        """Return what channels take inside a node, where that was measured."""
        return self.dispatch_work if direction == "dispatch" else self.combine_work

    def forwarding(self, direction: Direction) -> ForwardingWork | None:
        """Return what channels take between nodes, where that was measured."""
        return self.dispatch_forwarding if direction == "dispatch" else self.combine_forwarding

    def notify_s(self, direction: Direction, nodes: npt.ArrayLike) -> Floats:
        """Return (...) seconds before a transfer on so many nodes; 0 where not measured."""
        notify = self.dispatch_notify if direction == "dispatch" else self.combine_notify
        return np.zeros(np.shape(nodes)) if notify is None else notify.seconds(nodes)

    def nic_bytes_per_s(self, direction: Direction, nodes: npt.ArrayLike) -> Floats | None:
        """Return (...) the rate of the slowest NIC of groups on so many nodes, if measured."""
        is_dispatch = direction == "dispatch"
        rate = self.dispatch_nic_bytes_per_s if is_dispatch else self.combine_nic_bytes_per_s
        if rate is None:
            return None
        share = np.ones(np.shape(nodes)) if self.crowding is None else self.crowding.share(nodes)
        if self.slow_nic is None:
            return rate * share
        slowest = np.minimum(rate * share, self.slow_nic.bytes_per_s)
        return np.where(np.asarray(nodes) >= self.slow_nic.nodes, slowest, rate * share)


def latency_s(
    parameters: ExchangeParameters, direction: Direction, shape: ExchangeShape
) -> Floats | None:
    """Return (...) seconds of exchanges of next to nothing; None where not measured."""
    work, forwarding = parameters.work(direction), parameters.forwarding(direction)
    if work is None:
        return None
    inside_s = work.empty_s(shape)
    if forwarding is None:
        return inside_s
    return np.asarray(np.where(shape.nodes > 1, forwarding.empty_s(shape), inside_s))


def channel_s(
    parameters: ExchangeParameters,
    direction: Direction,
    shape: ExchangeShape,
    sms: npt.ArrayLike,
) -> Floats:
    """Return (...) seconds in which channels work for their tokens; 0 where not measured."""
    work, forwarding = parameters.work(direction), parameters.forwarding(direction)
    if work is None:
        return np.zeros(np.shape(shape.tokens))
    inside_s = work.channel_s(shape, sms)
    if forwarding is None:
        return inside_s
    return np.asarray(np.where(shape.nodes > 1, forwarding.channel_s(shape, sms), inside_s))


def moving_s(
    parameters: ExchangeParameters,
    direction: Direction,
    shape: ExchangeShape,
    busy_s: npt.ArrayLike,
    nic_s: npt.ArrayLike,
    nvlink_s: npt.ArrayLike,
) -> Floats:
    """Return (...) seconds in which tokens move.

    Args:
        busy_s, nic_s, nvlink_s: that channels, NICs (0 inside a node) and NVLink need by
            themselves.
    """
    longest_s = np.maximum(np.maximum(nic_s, nvlink_s), busy_s)
    forwarding = parameters.forwarding(direction)
    if forwarding is None:
        return np.asarray(longest_s)
    filling = forwarding.fill_tokens / (forwarding.fill_tokens + shape.tokens)
    return np.asarray(longest_s + np.minimum(busy_s, nic_s) * filling)


def exchange_s(
    parameters: ExchangeParameters,
    direction: Direction,
    shape: ExchangeShape,
    sms: npt.ArrayLike,
    *,
    link_latency_s: npt.ArrayLike = 0.0,
    nic_scale: float = 1.0,
    nvlink_scale: float = 1.0,
) -> Floats:
    """Return (...) seconds of exchanges, from the end of `notify` until all ranks are done.

    Args:
        sms: SMs given to communication; broadcasts with the shape.
        link_latency_s: of a small message; what a library without measured latency adds.
        nic_scale, nvlink_scale: links here / links the library was measured on.

    Raises:
        InfeasibleError: the group spans nodes and the library was measured inside one.
    """
    spans = shape.nodes > 1
    nic = parameters.nic_bytes_per_s(direction, shape.nodes)
    forwarding = parameters.forwarding_nvlink_bytes_per_s
    if spans.any() and (nic is None or forwarding is None):
        raise InfeasibleError(
            "library: its exchange was measured inside one node; allowed is 1 node, "
            f"got {int(np.max(shape.nodes))}"
        )
    share = np.asarray(1.0)
    if parameters.saturating_sms is not None:
        share = np.asarray(np.minimum(1.0, np.asarray(sms) / parameters.saturating_sms))
    inside = parameters.nvlink_bytes_per_s
    nvlink = np.where(spans, forwarding or inside, inside) * nvlink_scale * share
    nic_s = np.zeros(np.shape(spans))
    if nic is not None:
        nic_s = np.where(spans, shape.nic_bytes, 0.0) / (nic * nic_scale * share)
    measured_s = latency_s(parameters, direction, shape)
    empty_s = np.asarray(link_latency_s, np.float64) if measured_s is None else measured_s
    busy_s = channel_s(parameters, direction, shape, sms)
    whole_s = empty_s + moving_s(
        parameters, direction, shape, busy_s, nic_s, shape.nvlink_bytes / nvlink
    )
    return np.asarray(np.where(shape.nodes * shape.gpus_per_node == 1, 0.0, whole_s))


def transfer_s(
    parameters: ExchangeParameters,
    direction: Direction,
    shape: ExchangeShape,
    sms: npt.ArrayLike,
) -> Floats:
    """Return (...) seconds of the kernel on a rank whose own NIC is not the slow one.

    What `exchange_s` takes longer the rank waits, in the `notify` of the next exchange.

    Raises:
        InfeasibleError: as `exchange_s`.
    """
    whole_s = exchange_s(parameters, direction, shape, sms)
    if parameters.slow_nic is None or direction == "dispatch":
        return whole_s
    healthy = parameters.model_copy(update={"slow_nic": None})
    stays = 1 - parameters.slow_nic.left_behind(shape, sms)
    return np.asarray(np.maximum(exchange_s(healthy, direction, shape, sms), whole_s * stays))
