"""Time of the expert exchange in low-latency mode (DeepEP): every copy straight to its GPU.

No SMs stay busy while bytes are under way, and nothing is deduplicated: a token goes once to each
of its experts, over the NIC to other nodes and, where the library does so, over NVLink inside its
own:

    t = latency_s + experts expert_s + log2(nodes) node_latency_s + top_k token_bytes / sum_rate
        + max(tokens / SMs token_s, remote_bytes / nic_rate, local_bytes / nvlink_rate)

Kernels spread experts over SMs, at least one an SM, so that few experts use few SMs:
SMs = experts / ceil(experts / chip SMs). The sum of a token's copies is of combine.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from hwmodels.arrays import Floats
from hwmodels.costs.exchange import Direction
from hwmodels.errors import InfeasibleError
from hwmodels.spec import Spec
from hwmodels.units import BytesPerSecond, Seconds


class LowLatencyWork(Spec):
    """What one direction takes; None: no such term.

    Attributes:
        latency_s: of an empty exchange inside one node.
        expert_s: flags and counts of each expert of the layer.
        node_latency_s: what each doubling of the nodes adds.
        sum_bytes_per_s: rate at which the copies of one token are summed up.
        token_s: one token on one SM.
        nic_bytes_per_s: of one NIC; None where it was measured inside one node only.
        nvlink_bytes_per_s: of one GPU's NVLink.
    """

    latency_s: Seconds
    expert_s: Seconds | None = None
    node_latency_s: Seconds | None = None
    sum_bytes_per_s: BytesPerSecond | None = None
    token_s: Seconds | None = None
    nic_bytes_per_s: BytesPerSecond | None = None
    nvlink_bytes_per_s: BytesPerSecond


class LowLatencyParameters(Spec):
    """What the expert exchange achieves in low-latency mode.

    Attributes:
        header_bytes: what goes with each dispatched copy.
        dispatch, combine: of each direction.
    """

    header_bytes: Annotated[float, Field(ge=0, le=4096)]
    dispatch: LowLatencyWork
    combine: LowLatencyWork

    def work(self, direction: Direction) -> LowLatencyWork:
        """Return the constants of one direction."""
        return self.dispatch if direction == "dispatch" else self.combine


@dataclass(frozen=True, slots=True, eq=False)
class LowLatencyShape:
    """Balanced exchanges as columns that broadcast; `of` builds them from anything array-like.

    Attributes:
        tokens: of one GPU.
        token_bytes: of one copy of one token, header not included.
        top_k, experts: of the layer.
        nodes, gpus_per_node: of the group.
        sms: of the chip.
        over_nvlink: whether copies inside a node take NVLink; else they take NICs too.
    """

    tokens: Floats
    token_bytes: Floats
    top_k: Floats
    experts: Floats
    nodes: Floats
    gpus_per_node: Floats
    sms: Floats
    over_nvlink: bool = True

    @classmethod
    def of(
        cls,
        *,
        tokens: npt.ArrayLike,
        token_bytes: npt.ArrayLike,
        top_k: npt.ArrayLike,
        experts: npt.ArrayLike,
        nodes: npt.ArrayLike,
        gpus_per_node: npt.ArrayLike,
        sms: npt.ArrayLike,
        over_nvlink: bool = True,
    ) -> "LowLatencyShape":
        """Return the shapes of these columns, where one number may stand for all."""
        return cls(
            tokens=np.asarray(tokens, np.float64),
            token_bytes=np.asarray(token_bytes, np.float64),
            top_k=np.asarray(top_k, np.float64),
            experts=np.asarray(experts, np.float64),
            nodes=np.asarray(nodes, np.float64),
            gpus_per_node=np.asarray(gpus_per_node, np.float64),
            sms=np.asarray(sms, np.float64),
            over_nvlink=over_nvlink,
        )

    @property
    def copies(self) -> tuple[Floats, Floats]:
        """Copies that one GPU sends over its NIC, and over NVLink; its own stay where they are."""
        copy = self.tokens * self.top_k / (self.nodes * self.gpus_per_node)  # for each GPU
        near, far = copy * (self.gpus_per_node - 1), copy * (self.nodes - 1) * self.gpus_per_node
        return (far, near) if self.over_nvlink else (far + near, np.zeros_like(near))

    @property
    def sms_used(self) -> Floats:
        """SMs that have an expert to serve."""
        return np.asarray(self.experts / np.ceil(self.experts / self.sms))


def low_latency_s(
    parameters: LowLatencyParameters,
    direction: Direction,
    shape: LowLatencyShape,
    *,
    nic_scale: float = 1.0,
    nvlink_scale: float = 1.0,
) -> Floats:
    """Return (...) seconds of exchanges.

    Args:
        nic_scale, nvlink_scale: links here / links the library was measured on.

    Raises:
        InfeasibleError: copies must take NICs and the library was measured inside one node.
    """
    work = parameters.work(direction)
    message = shape.token_bytes
    if direction == "dispatch":
        message = message + parameters.header_bytes
    far, near = shape.copies
    busy = near * message / (work.nvlink_bytes_per_s * nvlink_scale)
    if far.any():
        if work.nic_bytes_per_s is None:
            raise InfeasibleError(
                "library: its low-latency exchange was measured over NVLink; allowed is 1 node, "
                f"got {int(np.max(shape.nodes))}"
            )
        busy = np.maximum(busy, far * message / (work.nic_bytes_per_s * nic_scale))
    busy = np.maximum(busy, shape.tokens / shape.sms_used * (work.token_s or 0.0))
    alone = shape.nodes * shape.gpus_per_node == 1
    return np.asarray(np.where(alone, 0.0, waits_s(work, shape) + busy))


def waits_s(work: LowLatencyWork, shape: LowLatencyShape) -> Floats:
    """Return what an exchange takes besides moving its bytes."""
    waits = work.latency_s + shape.experts * (work.expert_s or 0.0)
    waits = waits + (work.node_latency_s or 0.0) * np.log2(shape.nodes)
    if work.sum_bytes_per_s is not None:
        waits = waits + shape.top_k * shape.token_bytes / work.sum_bytes_per_s
    return np.asarray(waits)
