"""Programs of chunks: which segments run, in which order, and what each waits for."""

from itertools import pairwise

import pytest

from workloads.chunks import COMM, COMPUTE, Segment, chunk_program, segment_ops
from workloads.layers import Layer, PhaseOps
from workloads.ops import Exchange, MemoryOp


def kernel(name):
    return (MemoryOp(name, "cast", 1.0),)


def half(name, phases="FBW"):
    return PhaseOps(*[kernel(f"{name}({p})") if p in phases else () for p in "FBW"])


GLUED = Exchange(1, 1, 1, dispatch_glue=kernel("count"), combine_backward_glue=kernel("cast"))
MOE = Layer("moe", half("attn"), half("mlp"), Exchange(1, 1, 1))
DENSE = Layer("dense", half("attn"), half("mlp"))
HEAD = Layer("head", mlp=half("mlp"))
EMBEDDING = Layer("embedding", attn=half("attn", "FW"))
LAID_OUT = Layer("moe", half("attn"), half("mlp"), GLUED)
STAGES = {
    "one": [MOE],
    "two": [MOE, MOE],
    "first": [EMBEDDING, DENSE, LAID_OUT],
    "last": [LAID_OUT, HEAD, HEAD],
    "empty": [],
}


def labels(program, stream):
    return [segment.label for segment in program if segment.stream == stream]


def waits(program):
    """What each segment waits for, by label, the one before it in its stream left out."""
    return {each.label: [program[place].label for place in each.after] for each in program}


def halves(kind, stage):
    """Forward and backward layers of a chunk of one kind on one stage."""
    return (stage if "F" in kind else [], [] if kind == "F" else stage)


# Order


def test_a_pair_of_one_layer_each_runs_as_drawn():
    """The drawing of the module's docstring; every wait is one of those of the trace."""
    program = chunk_program("FB", [MOE], [MOE])
    compute = "attn(F) mlp(B) mlp(W) mlp(F) attn(B) attn(W)"
    comm = "combine(B) dispatch(F) dispatch(B) combine(F)"
    assert labels(program, COMPUTE) == [f"{name} 0" for name in compute.split()]
    assert labels(program, COMM) == [f"{name} 0" for name in comm.split()]
    assert waits(program) == {
        "attn(F) 0": [],
        "combine(B) 0": [],
        "dispatch(F) 0": ["attn(F) 0"],
        "mlp(B) 0": ["combine(B) 0"],
        "mlp(W) 0": [],
        "dispatch(B) 0": ["mlp(B) 0"],
        "mlp(F) 0": ["dispatch(F) 0"],
        "combine(F) 0": ["mlp(F) 0"],
        "attn(B) 0": ["dispatch(B) 0"],
        "attn(W) 0": [],
    }


def test_the_next_layers_of_a_pair_wait_for_the_last():
    """Forward layers go up and backward ones down: 0 with 1, then 1 with 0."""
    program = chunk_program("FB", [MOE, MOE], [MOE, MOE])
    assert waits(program)["attn(F) 1"] == ["combine(F) 0"]
    assert waits(program)["combine(B) 0"] == ["attn(B) 1"]
    assert labels(program, COMM)[:4] == [
        "combine(B) 1", "dispatch(F) 0", "dispatch(B) 1", "combine(F) 0",
    ]  # fmt: skip


def test_a_full_backward_alone_holds_exchanges_back_until_weight_gradients_have_run():
    program = chunk_program("B", [], [MOE, MOE])
    order = "mlp(B) {0} mlp(W) {0} attn(B) {0} attn(W) {0}"
    assert " ".join(labels(program, COMPUTE)) == f"{order.format(1)} {order.format(0)}"
    assert waits(program)["dispatch(B) 1"] == ["mlp(W) 1"]
    assert waits(program)["combine(B) 0"] == ["attn(W) 1"]


def test_input_gradients_alone_leave_weight_gradients_out():
    program = chunk_program("Bi", [], [MOE, MOE])
    assert labels(program, COMPUTE) == ["mlp(B) 1", "attn(B) 1", "mlp(B) 0", "attn(B) 0"]
    assert waits(program)["dispatch(B) 1"] == ["mlp(B) 1"]
    assert waits(program)["combine(B) 0"] == ["attn(B) 1"]


def test_put_off_weight_gradients_wait_for_nothing():
    program = chunk_program("W", [], [MOE, DENSE])
    assert labels(program, COMPUTE) == ["mlp(W) 1", "attn(W) 1", "mlp(W) 0", "attn(W) 0"]
    assert labels(program, COMM) == []
    assert {each.after for each in program} == {()}


def test_the_longer_half_of_a_pair_goes_on_alone():
    ahead = labels(chunk_program("FB", [MOE, DENSE], [MOE]), COMPUTE)
    assert ahead[-3:] == ["attn(W) 0", "attn(F) 1", "mlp(F) 1"]
    back = labels(chunk_program("FB", [DENSE], [MOE, MOE]), COMPUTE)
    assert back[:2] == ["attn(F) 0", "mlp(B) 1"]
    assert back[-4:] == ["mlp(B) 0", "mlp(W) 0", "attn(B) 0", "attn(W) 0"]


def test_what_an_exchange_needs_first_runs_on_its_stream_before_it():
    """Counting and layout before the dispatch of F, casting before the combine of B; nothing before
    the second exchange of a pass, which goes back the way the first one came.
    """
    program = chunk_program("FB", [LAID_OUT], [LAID_OUT])
    assert labels(program, COMM) == [
        "combine(B) 0 layout", "combine(B) 0", "dispatch(F) 0 layout", "dispatch(F) 0",
        "dispatch(B) 0", "combine(F) 0",
    ]  # fmt: skip
    assert waits(program)["dispatch(F) 0 layout"] == ["attn(F) 0"]
    assert waits(program)["dispatch(F) 0"] == ["dispatch(F) 0 layout"]
    assert waits(program)["combine(B) 0"] == ["combine(B) 0 layout"]


def test_what_has_no_kernels_is_left_out_and_passes_its_wait_on():
    """A head has no attention half and an embedding no mlp and no input gradient."""
    program = chunk_program("F", [EMBEDDING, MOE, HEAD], [])
    assert labels(program, COMPUTE) == ["attn(F) 0", "attn(F) 1", "mlp(F) 1", "mlp(F) 2"]
    assert waits(program)["attn(F) 1"] == ["attn(F) 0"]
    assert waits(program)["mlp(F) 2"] == ["combine(F) 1"]
    back = chunk_program("B", [], [EMBEDDING, MOE, HEAD])
    assert waits(back)["combine(B) 1"] == ["mlp(W) 2"]
    assert waits(back)["attn(W) 0"] == ["attn(W) 1"]


# Laws of all programs


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", ["F", "Bi", "B", "W", "FB"])
def test_every_segment_runs_once_and_waits_for_earlier_ones_only(kind, stage):
    """Segments with kernels of each phase the kind has, both exchanges of each pass that has any,
    and the layout of the first.
    """
    layers = STAGES[stage]
    ahead, back = halves(kind, layers)
    phases = {"F": "F", "Bi": "B", "B": "BW", "W": "W", "FB": "FBW"}[kind]
    expected = set()
    for phase in phases:
        for place, layer in enumerate(ahead if phase == "F" else back):
            parts = ["attn", "mlp"] + ["layout"] * (phase != "W")
            expected |= {(p, phase, place) for p in parts if segment_ops(layer, p, phase)}
            if layer.exchange is not None and phase != "W":
                expected |= {("dispatch", phase, place), ("combine", phase, place)}
    program = chunk_program(kind, ahead, back)
    assert {(each.part, each.phase, each.layer) for each in program} == expected
    assert len(program) == len(expected)
    assert all(after < place for place, each in enumerate(program) for after in each.after)


@pytest.mark.parametrize("stage", ["one", "two", "last"])
@pytest.mark.parametrize("kind", ["F", "Bi", "B", "FB"])
def test_a_pass_goes_through_its_segments_one_by_one(kind, stage):
    """Forward attn, dispatch, mlp, combine up the layers, backward the other way down: each starts
    after the one before has ended, by its own wait, through others, or in one stream.
    """
    program = chunk_program(kind, *halves(kind, STAGES[stage]))
    before = [set() for _ in program]
    last = {}
    for place, each in enumerate(program):
        for earlier in (*each.after, *last.get(each.stream, ())):
            before[place] |= {earlier} | before[earlier]
        last[each.stream] = (place,)
    for phase, step in (("F", 1), ("B", -1)):
        parts = ["attn", "layout", "dispatch", "mlp", "combine"]
        if phase == "B":
            parts = ["layout", "combine", "mlp", "dispatch", "attn"]
        own = [place for place, each in enumerate(program) if each.phase == phase]
        own.sort(key=lambda p: (step * program[p].layer, parts.index(program[p].part)))
        assert all(one in before[other] for one, other in pairwise(own))


# Segments


@pytest.mark.parametrize(
    ("part", "phase", "carrier"),
    [
        ("dispatch", "F", "dispatch"),
        ("combine", "F", "combine"),
        ("combine", "B", "dispatch"),
        ("dispatch", "B", "combine"),
    ],
)
def test_backward_exchanges_run_on_each_others_kernels(part, phase, carrier):
    """The gradient of a combine goes out to the experts as tokens do in a dispatch."""
    segment = Segment(COMM, part, phase, 0, ())
    assert segment.is_exchange
    assert segment.carrier == carrier


def test_only_dispatch_and_combine_move_tokens():
    program = chunk_program("FB", [LAID_OUT], [LAID_OUT])
    moving = [each for each in program if each.is_exchange]
    assert sorted(each.part for each in moving) == ["combine", "combine", "dispatch", "dispatch"]
    assert all(each.stream == COMM for each in moving)
    assert {e.part for e in program if not e.is_exchange} == {"attn", "mlp", "layout"}


def test_the_kernels_of_a_segment_are_those_of_its_half_and_phase():
    for part in ("attn", "mlp"):
        for phase in "FBW":
            assert segment_ops(LAID_OUT, part, phase) == kernel(f"{part}({phase})")
    assert segment_ops(LAID_OUT, "layout", "F") == kernel("count")
    assert segment_ops(LAID_OUT, "layout", "B") == kernel("cast")
    for part in ("dispatch", "combine"):
        assert segment_ops(LAID_OUT, part, "F") == segment_ops(LAID_OUT, part, "B") == ()
    assert segment_ops(DENSE, "layout", "F") == ()


def test_a_layout_is_named_after_its_exchange():
    assert Segment(COMM, "layout", "F", 3, ()).label == "dispatch(F) 3 layout"
    assert Segment(COMM, "layout", "B", 3, ()).label == "combine(B) 3 layout"
