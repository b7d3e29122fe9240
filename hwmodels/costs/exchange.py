"""Time of the expert exchange in normal mode: dispatch and combine with one copy a node (DeepEP).

Of the copies of a token, one for each distinct node crosses a NIC, to the GPU of the same index
there, which forwards it over NVLink to the distinct GPUs that want it (arXiv 2505.09343 §4.3;
combine goes the same way back):

    t = latency + max(channel, nic_bytes / nic_rate, nvlink_bytes / nvlink_rate)

SMs work in pairs, a channel, each channel through its share of the tokens, one after the other: it
looks at every token and copies some of them, with a team of warps for each GPU of the node:

    channel = tokens / channels (token_s + token_bytes / token_bytes_per_s
                + node_copies node_copy_s + gpu_copies / gpus_per_node (copy_s + token_bytes / r))

Where channels were never measured apart, rates grow with the SMs up to a saturating number.

Between nodes a `notify` kernel runs before it, in which ranks tell each other that they are ready;
its wait for the slowest of them belongs to that rank, not to it.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from hwmodels.arrays import Floats
from hwmodels.errors import InfeasibleError
from hwmodels.spec import Spec
from hwmodels.units import BytesPerSecond, Parts, Seconds

Direction = Literal["dispatch", "combine"]
SMS_PER_CHANNEL = 2
"""One SM of a channel sends, the other forwards or receives (DeepEP, `num_sms / 2` channels)."""

Slowdown = Annotated[float, Field(ge=1, le=10)]
"""Time beside the other kind of work / time alone."""


class ChannelWork(Spec):
    """What one channel takes for its tokens, and the exchange of a single one; None: no such term.

    Attributes:
        latency_s: of an empty exchange inside one node, launch and barriers included.
        forwarding_latency_s: the same between two nodes, another kernel.
        node_latency_s: what each doubling of more nodes adds to that.
        fill_bytes_per_s: rate at which the first token passes, before tokens overlap.
        token_s, token_bytes_per_s: every token of the channel, sent or not.
        node_copy_s: each copy of a token that crosses a NIC.
        copy_s, copy_bytes_per_s: each copy of a token for one GPU; the GPUs of a node in parallel.
    """

    latency_s: Seconds
    forwarding_latency_s: Seconds | None = None
    node_latency_s: Seconds | None = None
    fill_bytes_per_s: BytesPerSecond | None = None
    token_s: Seconds | None = None
    token_bytes_per_s: BytesPerSecond | None = None
    node_copy_s: Seconds | None = None
    copy_s: Seconds | None = None
    copy_bytes_per_s: BytesPerSecond | None = None


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


class ExchangeParameters(Spec):
    """What the expert exchange achieves; rates in bytes that cross the link, one direction.

    Attributes:
        dispatch_nic_bytes_per_s, combine_nic_bytes_per_s: of one NIC during dispatch and combine;
            None where it was measured inside one node only.
        nvlink_bytes_per_s: of one GPU's NVLink, inside a node only.
        forwarding_nvlink_bytes_per_s: the same while it forwards what NICs receive.
        saturating_sms: SMs given to communication above which its rate grows no more.
        dispatch_work, combine_work: of channels, in place of `saturating_sms`.
        dispatch_notify, combine_notify: before a transfer between nodes; None where not measured.
        dispatch_beside_compute, combine_beside_compute: slowdown of the transfer while compute
            kernels run on the other SMs; None where not measured.
    """

    dispatch_nic_bytes_per_s: BytesPerSecond | None = None
    combine_nic_bytes_per_s: BytesPerSecond | None = None
    nvlink_bytes_per_s: BytesPerSecond
    forwarding_nvlink_bytes_per_s: BytesPerSecond | None = None
    saturating_sms: Parts | None = None
    dispatch_work: ChannelWork | None = None
    combine_work: ChannelWork | None = None
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

    def work(self, direction: Direction) -> ChannelWork | None:
        """Return what channels take, where that was measured."""
        return self.dispatch_work if direction == "dispatch" else self.combine_work

    def notify_s(self, direction: Direction, nodes: npt.ArrayLike) -> Floats:
        """Return (...) seconds before a transfer on so many nodes; 0 where not measured."""
        notify = self.dispatch_notify if direction == "dispatch" else self.combine_notify
        return np.zeros(np.shape(nodes)) if notify is None else notify.seconds(nodes)

    def nic_bytes_per_s(self, direction: Direction) -> float | None:
        """Return the rate of one NIC, where one was measured."""
        is_dispatch = direction == "dispatch"
        return self.dispatch_nic_bytes_per_s if is_dispatch else self.combine_nic_bytes_per_s


@dataclass(frozen=True, slots=True, eq=False)
class ExchangeShape:
    """Balanced exchanges as columns that broadcast; `of` builds them from anything array-like.

    Attributes:
        tokens: of one GPU.
        token_bytes: of one copy of one token.
        node_copies: distinct nodes other than its own that a token goes to.
        gpu_copies: distinct GPUs that a token goes to, its own counted if chosen.
        nodes, gpus_per_node: of the group.
    """

    tokens: Floats
    token_bytes: Floats
    node_copies: Floats
    gpu_copies: Floats
    nodes: Floats
    gpus_per_node: Floats

    @classmethod
    def of(
        cls,
        *,
        tokens: npt.ArrayLike,
        token_bytes: npt.ArrayLike,
        node_copies: npt.ArrayLike,
        gpu_copies: npt.ArrayLike,
        nodes: npt.ArrayLike,
        gpus_per_node: npt.ArrayLike,
    ) -> "ExchangeShape":
        """Return the shapes of these columns, where one number may stand for all."""
        columns = (tokens, token_bytes, node_copies, gpu_copies, nodes, gpus_per_node)
        return cls(*(np.asarray(column, np.float64) for column in columns))

    @property
    def nic_bytes(self) -> Floats:
        """Bytes that one NIC sends, and receives."""
        return self.tokens * self.token_bytes * self.node_copies

    @property
    def nvlink_bytes(self) -> Floats:
        """Bytes that one GPU receives over NVLink: all but those already there."""
        leaves = 1 - 1 / self.gpus_per_node
        return self.tokens * self.token_bytes * self.gpu_copies * leaves


def channel_s(work: ChannelWork, shape: ExchangeShape, sms: npt.ArrayLike) -> Floats:
    """Return the time channels work for their tokens, latency not included."""
    copy_s = (work.copy_s or 0.0) + _over(shape.token_bytes, work.copy_bytes_per_s)
    token_s = (work.token_s or 0.0) + _over(shape.token_bytes, work.token_bytes_per_s)
    node_s = shape.node_copies * (work.node_copy_s or 0.0)
    gpu_s = shape.gpu_copies / shape.gpus_per_node * copy_s
    channels = np.asarray(sms, np.float64) / SMS_PER_CHANNEL
    return np.asarray(shape.tokens / channels * (token_s + node_s + gpu_s))


def latency_s(work: ChannelWork, shape: ExchangeShape) -> Floats:
    """Return the time of an exchange of next to nothing."""
    doublings = np.maximum(np.log2(shape.nodes) - 1, 0.0)
    inside = work.latency_s
    between = inside if work.forwarding_latency_s is None else work.forwarding_latency_s
    between_s = between + (work.node_latency_s or 0.0) * doublings
    fill_s = _over(shape.token_bytes, work.fill_bytes_per_s)
    return np.asarray(np.where(shape.nodes > 1, between_s, inside) + fill_s)


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
    """Return (...) seconds of exchanges, from the end of `notify` on.

    Args:
        sms: SMs given to communication; broadcasts with the shape.
        link_latency_s: of a small message; what a library without measured latency adds.
        nic_scale, nvlink_scale: links here / links the library was measured on.

    Raises:
        InfeasibleError: the group spans nodes and the library was measured inside one.
    """
    spans = shape.nodes > 1
    nic = parameters.nic_bytes_per_s(direction)
    forwarding = parameters.forwarding_nvlink_bytes_per_s
    if spans.any() and (nic is None or forwarding is None):
        raise InfeasibleError(
            "library: its exchange was measured inside one node; allowed is 1 node, "
            f"got {int(np.max(shape.nodes))}"
        )
    work = parameters.work(direction)
    share = np.asarray(1.0)
    if parameters.saturating_sms is not None:
        share = np.asarray(np.minimum(1.0, np.asarray(sms) / parameters.saturating_sms))
    inside = parameters.nvlink_bytes_per_s
    nvlink = np.where(spans, forwarding or inside, inside) * nvlink_scale * share
    busy = shape.nvlink_bytes / nvlink
    if nic is not None:
        busy = np.maximum(busy, np.where(spans, shape.nic_bytes, 0.0) / (nic * nic_scale * share))
    if work is None:
        time_s = np.asarray(link_latency_s, np.float64) + busy
    else:
        time_s = latency_s(work, shape) + np.maximum(busy, channel_s(work, shape, sms))
    return np.asarray(np.where(shape.nodes * shape.gpus_per_node == 1, 0.0, time_s))


def _over(size_bytes: Floats, bytes_per_s: float | None) -> Floats:
    """Return the time of bytes at a rate, none where there is no such term."""
    return np.zeros_like(size_bytes) if bytes_per_s is None else size_bytes / bytes_per_s
