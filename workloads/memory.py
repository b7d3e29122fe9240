"""Bytes one rank needs, term by term.

The recipe says what a parameter takes: its weight and copies of it, gradient, and the states of the
optimizer, sharded over the replicas under ZeRO-1. Activations are those of the micro-batches in
flight at the worst moment of the program. Not modelled: operands held by weight gradients that were
put off, allocator fragmentation, and uneven expert load.
"""

from collections.abc import Mapping, Sequence

from hwmodels.errors import InfeasibleError
from hwmodels.units import format_quantity
from workloads.layers import Layer, Parameters
from workloads.recipes import Recipe
from workloads.schedules.replay import peak_in_flight
from workloads.schedules.step import Step

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
) -> dict[str, float]:
    """Return bytes by term for a rank that holds stages `held` and runs `program`.

    Args:
        dense, experts: ranks that hold the same dense parameters, and the same experts.
    """
    of_one = recipe.parameter
    parameters = rank_parameters(stages, held)
    saved = {stage: sum(layer.saved_bytes for layer in stages[stage]) for stage in held}
    logits = {stage: sum(layer.logits_bytes for layer in stages[stage]) for stage in held}
    shards = (dense, experts) if zero else (1, 1)
    states = parameters.replicated / shards[0] + parameters.routed / shards[1]
    return {
        "weights": parameters.total * of_one.weight,
        **{name: parameters.linear * size for name, size in of_one.copies},
        "gradients": parameters.total * of_one.gradient,
        "optimizer_states": states * of_one.states,
        "activations": peak_in_flight(program, saved.__getitem__),
        "logits": max(logits.values()),
        "buffers": BUFFER_BYTES,
        "driver_and_context": CONTEXT_BYTES,
    }


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
