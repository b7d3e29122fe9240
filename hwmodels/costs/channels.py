"""What the SMs of an exchange do: channels that work through tokens, inside a node and between.

SMs work in pairs, a channel, each channel through its share of the tokens, one after the other
(`get_channel_task_range`, DeepEP @008e399). Inside a node it looks at every token and copies some
of them, with a team of warps for each GPU of the node,

    channel = ceil(tokens / channels) (token_s + token_bytes / token_bytes_per_s
                + gpu_copies / gpus_per_node (copy_s + token_bytes / copy_bytes_per_s))

Between nodes other kernels run, in which a channel passes every token on:

    channel = ceil(tokens / channels) token_bytes / token_bytes_per_s
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from hwmodels.arrays import Floats
from hwmodels.spec import Spec
from hwmodels.units import BytesPerSecond, Seconds

SMS_PER_CHANNEL = 2
"""One SM of a channel sends, the other forwards or receives (DeepEP, `num_sms / 2` channels)."""


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
    def copies_between_gpus(self) -> Floats:
        """Copies that a GPU has for one GPU of a node, whichever node they are from."""
        return self.tokens * self.gpu_copies / self.gpus_per_node

    @property
    def nvlink_bytes(self) -> Floats:
        """Bytes that one GPU receives over NVLink: all but those already there."""
        leaves = 1 - 1 / self.gpus_per_node
        return self.tokens * self.token_bytes * self.gpu_copies * leaves


class ChannelWork(Spec):
    """What one channel takes inside a node, and the exchange of a single token; None: no such term.

    Attributes:
        latency_s: of an empty exchange, launch and barriers included.
        fill_bytes_per_s: rate at which the first token passes, before tokens overlap.
        token_s, token_bytes_per_s: every token of the channel, sent or not.
        copy_s, copy_bytes_per_s: each copy of a token for one GPU; the GPUs of a node in parallel.
    """

    latency_s: Seconds
    fill_bytes_per_s: BytesPerSecond | None = None
    token_s: Seconds | None = None
    token_bytes_per_s: BytesPerSecond | None = None
    copy_s: Seconds | None = None
    copy_bytes_per_s: BytesPerSecond | None = None

    def channel_s(self, shape: ExchangeShape, sms: npt.ArrayLike) -> Floats:
        """Return (...) seconds in which channels work for their tokens, latency not included."""
        copy_s = (self.copy_s or 0.0) + _over(shape.token_bytes, self.copy_bytes_per_s)
        token_s = (self.token_s or 0.0) + _over(shape.token_bytes, self.token_bytes_per_s)
        each_s = token_s + shape.gpu_copies / shape.gpus_per_node * copy_s
        return np.asarray(_tokens_of_channel(shape, sms) * each_s)

    def empty_s(self, shape: ExchangeShape) -> Floats:
        """Return (...) seconds of an exchange of next to nothing."""
        return np.asarray(self.latency_s + _over(shape.token_bytes, self.fill_bytes_per_s))


class ForwardingWork(Spec):
    """What one channel takes between nodes, and the exchange of a single token.

    Attributes:
        latency_s: of an empty exchange between two nodes, launch, barriers and hops included.
        node_latency_s: what each doubling of more nodes adds.
        token_bytes_per_s: rate at which a channel passes tokens on, to whichever nodes.
        fill_tokens: of a GPU; their time in channels and in NICs does not overlap.
    """

    latency_s: Seconds
    node_latency_s: Seconds
    token_bytes_per_s: BytesPerSecond
    fill_tokens: Annotated[float, Field(ge=0, le=1e6)]

    def channel_s(self, shape: ExchangeShape, sms: npt.ArrayLike) -> Floats:
        """Return (...) seconds in which channels work for their tokens, latency not included."""
        each_s = shape.token_bytes / self.token_bytes_per_s
        return np.asarray(_tokens_of_channel(shape, sms) * each_s)

    def empty_s(self, shape: ExchangeShape) -> Floats:
        """Return (...) seconds of an exchange of next to nothing."""
        doublings = np.maximum(np.log2(shape.nodes) - 1, 0.0)
        return np.asarray(self.latency_s + self.node_latency_s * doublings)


def _tokens_of_channel(shape: ExchangeShape, sms: npt.ArrayLike) -> Floats:
    return np.asarray(np.ceil(shape.tokens * SMS_PER_CHANNEL / np.asarray(sms, np.float64)))


def _over(size_bytes: Floats, bytes_per_s: float | None) -> Floats:
    """Return the time of bytes at a rate, none where there is no such term."""
    return np.zeros_like(size_bytes) if bytes_per_s is None else size_bytes / bytes_per_s
