"""Bytes one rank needs, term by term.

The recipe says what a parameter takes: its weight and copies of it, gradient, and the states of the
optimizer, sharded over the replicas under ZeRO-1. Activations are those of the micro-batches in
flight at the worst moment of the program. Not modelled: operands held by weight gradients that were
put off, and allocator fragmentation.

Where experts are unevenly loaded for good, a rank keeps activations of as many routed rows as it
gets, and has buffers for as many: of its most loaded layer what experts get of a dispatch and hand
to a combine, beyond the balanced load, which is in `BUFFER_BYTES`. The terms are then those of the
fullest rank of an expert group. A redundant expert is as large as any, states included: the ranks
of its slots keep them as if it were another.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from hwmodels.errors import InfeasibleError
from hwmodels.units import format_quantity
from workloads.experts import ExpertGroup
from workloads.layers import Layer, Parameters
from workloads.recipes import Recipe
from workloads.schedules.replay import peak_in_flight
from workloads.schedules.step import Step, in_flight

CONTEXT_BYTES = 1.0e9
"""What no tensor can have. The driver keeps 0.59 GB of an H100: nvidia-smi reports 81,559 MiB, CUDA
79.10 GiB, of which 58.28 are 73.68 % (pytorch/torchtitan issue 1789). A CUDA context takes about
0.4 GB (pytorch/pytorch issue 109888).
"""

BUFFER_BYTES = 5.6e9
"""Expert-exchange and NCCL buffers, workspaces: an estimate, not published. One communicator was
seen to take 1.6 GB, several 6 GB (NVIDIA/nccl issue 864).
"""


def rank_parameters(stages: Sequence[Sequence[Layer]], held: Sequence[int]) -> Parameters:
    """Return the parameters of a rank that holds stages `held`, shared tables once."""
    layers = [layer for stage in held for layer in stages[stage]]
    tables = dict(table for layer in layers for table in layer.tables)
    layer_parameters = sum((layer.parameters for layer in layers), Parameters())
    return layer_parameters + Parameters(tables=sum(tables.values()))


def memory_terms(
    stages: Sequence[Sequence[Layer]],
    held: Sequence[int],
    program: Sequence[Step],
    dense: int,
    experts: int,
    zero: int,
    recipe: Recipe,
    group: ExpertGroup | None = None,
) -> dict[str, float]:
    """Return bytes by term for a rank that holds stages `held` and runs `program`.

    Args:
        dense, experts: ranks that hold the same dense parameters, and the same experts.
        group: loads that last of its ranks, of which the fullest is told; balanced without it.
    """
    of_one = recipe.parameter
    parameters = rank_parameters(stages, held)
    logits = {stage: sum(layer.logits_bytes for layer in stages[stage]) for stage in held}
    shards = (dense, experts) if zero else (1, 1)
    activations, buffers = _of_tokens(stages, held, program, group)
    states = parameters.replicated / shards[0] + parameters.routed / shards[1]
    return {
        "weights": parameters.total * of_one.weight,
        **{name: parameters.linear * size for name, size in of_one.copies},
        "gradients": parameters.total * of_one.gradient,
        "optimizer_states": states * of_one.states,
        "activations": activations,
        "logits": max(logits.values()),
        "buffers": buffers,
        "driver_and_context": CONTEXT_BYTES,
    }


def _of_tokens(
    stages: Sequence[Sequence[Layer]],
    held: Sequence[int],
    program: Sequence[Step],
    group: ExpertGroup | None,
) -> tuple[float, float]:
    """Return activations and buffers of the rank of an expert group where both are most."""
    saved = {stage: sum(layer.saved_bytes for layer in stages[stage]) for stage in held}
    if group is None or group.lasting is None:
        return peak_in_flight(program, saved.__getitem__), BUFFER_BYTES
    more = {stage: np.zeros(group.ranks) for stage in held}
    buffers = np.zeros(group.ranks)
    for stage, layer, number in routed_layers(stages):
        if stage in more:
            load = group.lasting_of(number)
            more[stage] += (load - 1) * layer.routed_bytes
            buffers = np.maximum(buffers, (load - 1) * layer.exchanged_bytes)
    by_stage = {stage: saved[stage] + more[stage] for stage in held}
    in_flight_now = peak = np.zeros(group.ranks)
    for _, chunk, change in in_flight(program):
        in_flight_now = in_flight_now + change * by_stage[chunk.stage]
        peak = np.maximum(peak, in_flight_now)
    fullest = int((peak + buffers).argmax())
    return float(peak[fullest]), BUFFER_BYTES + float(buffers[fullest])


def routed_layers(stages: Sequence[Sequence[Layer]]) -> Iterator[tuple[int, Layer, int]]:
    """Yield stage, layer and number of every layer with experts, in the model's order."""
    number = 0
    for stage, layers in enumerate(stages):
        for layer in layers:
            if layer.routed:
                yield stage, layer, number
                number += 1


def check_memory(by_rank: Sequence[Mapping[str, float]], capacity_bytes: float) -> None:
    """Refuse ranks whose terms exceed the memory of a GPU.

    Raises:
        InfeasibleError: names the fullest rank and its largest terms.
    """
    totals = [sum(terms.values()) for terms in by_rank]
    total = max(totals)
    if total <= capacity_bytes:
        return
    rank = totals.index(total)
    terms = by_rank[rank]
    largest = sorted(terms.items(), key=lambda term: -term[1])[:3]
    named = ", ".join(f"{name} {format_quantity(size, 'B', 3)}" for name, size in largest)
    raise InfeasibleError(
        f"memory of pipeline rank {rank}: needs {format_quantity(total, 'B', 3)} "
        f"({named} ...), the GPU has {format_quantity(capacity_bytes, 'B', 3)}"
    )
