"""Every field of a preset cluster, and of communication, changes something that is told.

Fields are found by walking the specs, so that a new one is asked for its physics. Each is turned,
alone, and the cheapest look that shows it has to show it: the network as `show cluster` tells it,
and steps of several kinds. A step that is refused for what it needs, such as memory, is shown too.
"""

import typing
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from pydantic import BaseModel

from hwmodels.errors import InfeasibleError, InputError
from hwmodels.prices import PRICES
from simulator import Experiment, run
from simulator.tell.network import network_facts

CLUSTER = "h800-2048-mpft"
SHORT = {"cluster": CLUSTER, "batch.sequences": 4096}
PRICE = PRICES.load("isca25-table3")

NOT_READ = {
    "cluster.name": "a name, for people",
    "cluster.node.name": "a name, for people",
    "cluster.node.chip.name": "a name; profiles know their chip by the preset's",
    "cluster.node.scale_up.kind": "one kind is known; another is refused",
    "cluster.node.host.cores": "no kernel of a training step runs on hosts",
    "cluster.node.host.dram_capacity_bytes": "nothing is offloaded to hosts",
    "cluster.node.host.dram_bytes_per_s": "nothing is offloaded to hosts",
    "cluster.node.chip.tensor.tf32": "no product of a training step is in TF32",
    "cluster.node.chip.vector_flops_per_s": "kernels without products are priced by their bytes",
}
"""Facts of the presets that nothing reads, with the reason of each."""

WISHED = (
    "cluster.node.chip.nvlink_bytes_per_s",
    "cluster.node.chip.exchange_engine",
    "cluster.node.chip.fp8_unit.block_scaling",
    "cluster.node.chip.hbm_bytes_per_s",
    "cluster.node.chip.hbm_capacity_bytes",
    "cluster.node.gpus",
    "cluster.node.nics",
    "cluster.node.nic.link_bytes_per_s",
    "cluster.node.nic.ports",
    "cluster.node.nic.codec",
    "cluster.node.pcie_bytes_per_s",
    "cluster.fabric.planes",
    "cluster.fabric.multicast",
    "cluster.fabric.reduction",
    "cluster.fabric.host_latency_s",
    "cluster.fabric.hop_latency_s",
    "communication.sms",
    "communication.combine",
    "communication.codec_overhead",
    "communication.routing",
    "communication.routed_nodes_max",
)
"""Knobs of ISCA'25 and of the V3 report's wishes (§4 to §6; §3.5): none may do nothing."""


# What there is to turn


def fields(spec: BaseModel, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield (path, annotation, value) of every field below `path`, open tables included."""
    for name, field in type(spec).model_fields.items():
        value, below = getattr(spec, name), f"{path}.{name}"
        if isinstance(value, BaseModel):
            yield from fields(value, below)
        elif isinstance(value, dict):
            inner = typing.get_args(field.annotation)[1]
            yield from ((f"{below}.{key}", inner, each) for key, each in value.items())
        else:
            yield below, field.annotation, value


EXPERIMENT = Experiment.load("deepseek-v3-pretrain").with_overrides({"cluster": CLUSTER})
FIELDS = {
    path: (annotation, value)
    for name in ("cluster", "communication")
    for path, annotation, value in fields(getattr(EXPERIMENT, name), name)
}


def literals(annotation: Any) -> list[Any]:
    """Return the words that a field takes, of any arm of its type."""
    if typing.get_origin(annotation) is typing.Literal:
        return list(typing.get_args(annotation))
    return [word for arm in typing.get_args(annotation) for word in literals(arm)]


RAILS = {
    "kind": "rail_only",
    "planes": 8,
    "switch_radix": 256,
    "link_bytes_per_s": "400 Gb/s",
    "host_latency_s": "2.35 us",
    "hop_latency_s": "0.45 us",
}
NAMED: dict[str, list[Any]] = {
    "cluster.fabric.kind": [RAILS],
    "cluster.faults": [["plane:3"]],
    "cluster.fabric.oversubscription": [4.0],
    "communication.routed_nodes_max": [2],
    "communication.capacity_factor": [1.2],
}
"""Other kinds of fabric, and values of fields that the preset leaves out: what no type tells."""


def others(path: str) -> list[Any]:
    """Return values to try, other than the present one."""
    annotation, value = FIELDS[path]
    words = [word for word in literals(annotation) if word != value]
    if path in NAMED or words:
        return NAMED.get(path, words)
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        halved = value // 2 if isinstance(value, int) else value / 2
        return [halved, value * 2, value + 1, value + 0.5]
    if isinstance(value, tuple):
        return [[2 * each for each in value], [each // 2 for each in value]]
    return [f"another {value}"]


# What is looked at

View = Callable[[Experiment], Any]


def told(experiment: Experiment) -> Any:
    """Metrics, phases and memory of a step."""
    result = run(experiment)
    return result.metrics, result.breakdown_s, result.memory_bytes


def network(experiment: Experiment) -> Any:
    """The cluster's network, with price and power."""
    return network_facts(experiment.cluster, PRICE)


class Look(typing.NamedTuple):
    """A view, and what is fixed before a field is turned."""

    view: View
    fixed: dict[str, Any]


LOOKS = {
    "show cluster": Look(network, {}),
    "a step": Look(told, {}),
    "a step by the roofline": Look(told, {"profile": "none"}),
    "a step with LogFMT": Look(told, {"communication.combine": "logfmt10"}),
    "a step on shared NICs": Look(told, {"communication.nics": "shared"}),
    "a step on a narrow fabric": Look(
        told, {"cluster": "h800-2048-ft2", "cluster.fabric.oversubscription": 4.0}
    ),
    "a step with a profile of another chip": Look(told, {"profile": "h200-trtllm"}),
    "a step with sums in FP32": Look(
        told, {"cluster.node.chip.fp8_unit.accumulation_mantissa_bits": 23}
    ),
    "a step with a capacity": Look(
        told,
        {
            "communication.capacity_factor": 1.25,
            "ranks.expert_load": {"kind": "zipf", "exponent": 0.5},
        },
    ),
    "a step in BF16": Look(
        told,
        {
            "precision.recipe": "bf16",
            "profile": "none",
            "cluster.node.chip.hbm_capacity_bytes": "8 TB",
        },
    ),
}


def seen(look: str, changes: dict[str, Any]) -> Any:
    """Return what a look shows of changes; None where they are refused."""
    view, fixed = LOOKS[look]
    try:
        return view(Experiment.load("deepseek-v3-pretrain", SHORT | fixed | changes))
    except InputError:
        return None


@cache
def unturned(look: str) -> Any:
    """Return what a look shows before anything is turned, which is something."""
    found = seen(look, {})
    assert found is not None, look
    return found


def is_refused(changes: dict[str, Any]) -> bool:
    """Return whether a step is refused for what it needs, as memory that is not there."""
    try:
        run(Experiment.load("deepseek-v3-pretrain", SHORT | changes))
    except InputError as error:
        return isinstance(error, InfeasibleError)
    return False


def turned(path: str) -> list[dict[str, Any]]:
    """Return changes that turn a field; a kind takes the fields of another kind with it."""
    return [
        {path.rpartition(".")[0] if isinstance(value, dict) else path: value}
        for value in others(path)
    ]


@cache
def shown_by(path: str) -> str | None:
    """Return the first look that shows a field, None where none does."""
    for changes in turned(path):
        for look in LOOKS:
            found = seen(look, changes)
            if found is not None and found != unturned(look):
                return look
    return "a refusal" if any(map(is_refused, turned(path))) else None


@pytest.mark.parametrize("path", sorted(FIELDS.keys() - NOT_READ.keys()))
def test_a_field_changes_something(path: str) -> None:
    assert shown_by(path) is not None, f"{path}: give it physics, or refuse it"


@pytest.mark.parametrize("path", NOT_READ)
def test_what_is_listed_is_there_and_changes_nothing(path: str) -> None:
    """Whoever gives a field its physics takes it off the list."""
    assert path in FIELDS
    assert shown_by(path) is None


@pytest.mark.parametrize("path", WISHED)
def test_no_wish_is_on_the_list(path: str) -> None:
    assert path in FIELDS
    assert path not in NOT_READ
