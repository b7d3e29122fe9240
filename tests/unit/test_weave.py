"""Passes and woven passes: which segments run, in which order, and what each waits for."""

from itertools import pairwise
from typing import get_args

import pytest

from hwmodels.errors import InfeasibleError
from workloads.layers import Block, Layer
from workloads.ops import COMM, COMPUTE, Comm, MemoryOp, Stream
from workloads.recipes import Passes
from workloads.scenarios.training_parts import step_segments
from workloads.weave import Weaver


def kernel(name, **where):
    return (MemoryOp(name, "cast", 1.0, **where),)


def half(name, phases="FBW"):
    return Passes(*[kernel(f"{name}({p})") if p in phases else () for p in "FBW"])


def exchange(name, kind):
    return (Comm(name, kind, ("ep",), 1.0),)


def moe(glued=False):
    """A layer with experts: what an exchange needs first, if anything, runs on its stream."""
    count, cast = (kernel(name, stream=COMM) if glued else () for name in ("count", "cast"))
    dispatch = Passes(count + exchange("dispatch", "dispatch"), exchange("dispatch", "combine"))
    combine = Passes(exchange("combine", "combine"), cast + exchange("combine", "dispatch"))
    return Layer(
        "moe", (Block("attn", half("attn") + dispatch), Block("mlp", half("mlp") + combine))
    )


def woven(kind, ahead, back):
    return step_segments(kind, ahead, back, Weaver())


MOE, LAID_OUT = moe(), moe(glued=True)
DENSE = Layer("dense", (Block("attn", half("attn")), Block("mlp", half("mlp"))))
HEAD = Layer("head", (Block("attn"), Block("mlp", half("mlp"))))
EMBEDDING = Layer("embedding", (Block("attn", half("attn", "FW")), Block("mlp")))
STAGES = {
    "one": [MOE],
    "two": [MOE, MOE],
    "first": [EMBEDDING, DENSE, LAID_OUT],
    "last": [LAID_OUT, HEAD, HEAD],
    "empty": [],
}


def labels(program, stream):
    return [str(segment.label) for segment in program if segment.stream == stream]


def waits(program):
    """What each segment waits for, by label, the one before it in its stream left out."""
    names = [str(each.label) for each in program]
    return {
        name: [names[place] for place in each.after]
        for name, each in zip(names, program, strict=True)
    }


def halves(kind, stage):
    """Forward and backward layers of a chunk of one kind on one stage."""
    return (stage if "F" in kind else [], [] if kind == "F" else stage)


# Order


def test_a_pair_of_one_layer_each_runs_as_drawn():
    """The drawing of the module's docstring; every wait is one of those of the trace."""
    program = woven("FB", [MOE], [MOE])
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
    program = woven("FB", [MOE, MOE], [MOE, MOE])
    assert waits(program)["attn(F) 1"] == ["combine(F) 0"]
    assert waits(program)["combine(B) 0"] == ["attn(B) 1"]
    assert labels(program, COMM)[:4] == [
        "combine(B) 1", "dispatch(F) 0", "dispatch(B) 1", "combine(F) 0",
    ]  # fmt: skip


def test_a_full_backward_alone_holds_exchanges_back_until_weight_gradients_have_run():
    program = woven("B", [], [MOE, MOE])
    order = "mlp(B) {0} mlp(W) {0} attn(B) {0} attn(W) {0}"
    assert " ".join(labels(program, COMPUTE)) == f"{order.format(1)} {order.format(0)}"
    assert waits(program)["dispatch(B) 1"] == ["mlp(W) 1"]
    assert waits(program)["combine(B) 0"] == ["attn(W) 1"]


def test_input_gradients_alone_leave_weight_gradients_out():
    program = woven("Bi", [], [MOE, MOE])
    assert labels(program, COMPUTE) == ["mlp(B) 1", "attn(B) 1", "mlp(B) 0", "attn(B) 0"]
    assert waits(program)["dispatch(B) 1"] == ["mlp(B) 1"]
    assert waits(program)["combine(B) 0"] == ["attn(B) 1"]


def test_put_off_weight_gradients_wait_for_nothing():
    program = woven("W", [], [MOE, DENSE])
    assert labels(program, COMPUTE) == ["mlp(W) 1", "attn(W) 1", "mlp(W) 0", "attn(W) 0"]
    assert labels(program, COMM) == []
    assert {each.after for each in program} == {()}


def test_the_longer_half_of_a_pair_goes_on_alone():
    ahead = labels(woven("FB", [MOE, DENSE], [MOE]), COMPUTE)
    assert ahead[-3:] == ["attn(W) 0", "attn(F) 1", "mlp(F) 1"]
    back = labels(woven("FB", [DENSE], [MOE, MOE]), COMPUTE)
    assert back[:2] == ["attn(F) 0", "mlp(B) 1"]
    assert back[-4:] == ["mlp(B) 0", "mlp(W) 0", "attn(B) 0", "attn(W) 0"]


def test_what_an_exchange_needs_first_runs_on_its_stream_before_it():
    """Counting and layout before the dispatch of F, casting before the combine of B; nothing before
    the second exchange of a pass, which goes back the way the first one came.
    """
    program = woven("FB", [LAID_OUT], [LAID_OUT])
    assert labels(program, COMM) == [
        "combine(B) 0 layout", "combine(B) 0", "dispatch(F) 0 layout", "dispatch(F) 0",
        "dispatch(B) 0", "combine(F) 0",
    ]  # fmt: skip
    assert waits(program)["dispatch(F) 0 layout"] == ["attn(F) 0"]
    assert waits(program)["dispatch(F) 0"] == ["dispatch(F) 0 layout"]
    assert waits(program)["combine(B) 0"] == ["combine(B) 0 layout"]


def test_what_has_no_kernels_is_left_out_and_passes_its_wait_on():
    """A head has no attention half and an embedding no mlp and no input gradient."""
    program = woven("F", [EMBEDDING, MOE, HEAD], [])
    assert labels(program, COMPUTE) == ["attn(F) 0", "attn(F) 1", "mlp(F) 1", "mlp(F) 2"]
    assert waits(program)["attn(F) 1"] == ["attn(F) 0"]
    assert waits(program)["mlp(F) 2"] == ["combine(F) 1"]
    back = woven("B", [], [EMBEDDING, MOE, HEAD])
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
            for block in layer.blocks:
                works = block.ops.of(phase)
                if any(work.stream == COMPUTE for work in works):
                    expected.add((block.name, phase, place, ""))
                comms = [work.name for work in works if isinstance(work, Comm)]
                expected |= {(name, phase, place, "") for name in comms}
                if any(isinstance(work, MemoryOp) and work.stream == COMM for work in works):
                    expected |= {(name, phase, place, "layout") for name in comms}
    program = woven(kind, ahead, back)
    assert {tuple(each.label) for each in program} == expected
    assert len(program) == len(expected)
    assert all(after < place for place, each in enumerate(program) for after in each.after)


def named(label):
    return label.note or label.block


@pytest.mark.parametrize("stage", ["one", "two", "last"])
@pytest.mark.parametrize("kind", ["F", "Bi", "B", "FB"])
def test_a_pass_goes_through_its_segments_one_by_one(kind, stage):
    """Forward attn, dispatch, mlp, combine up the layers, backward the other way down: each starts
    after the one before has ended, by its own wait, through others, or in one stream.
    """
    program = woven(kind, *halves(kind, STAGES[stage]))
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
        labels = [each.label for each in program]
        own = [place for place, label in enumerate(labels) if label.pass_ == phase]
        own.sort(key=lambda p: (step * labels[p].layer, parts.index(named(labels[p]))))
        assert all(one in before[other] for one, other in pairwise(own))


@pytest.mark.parametrize(
    ("sent", "got"),
    [
        (kernel("count", stream=COMM), "count: a kernel on comm .* got none"),
        (
            kernel("load", stream="copy") + exchange("dispatch", "dispatch"),
            "load: a kernel on copy .* got one on comm",
        ),
        (
            exchange("dispatch", "dispatch") + kernel("late", stream=COMM),
            "late: a kernel on comm .* got none",
        ),
    ],
    ids=["alone", "another stream", "behind it"],
)
def test_a_kernel_that_no_communication_waits_for_is_refused(sent, got):
    layer = Layer("any", (Block("any", Passes(kernel("a") + sent)),))
    with pytest.raises(InfeasibleError, match=f"any layer: {got}"):
        woven("F", [layer], [])


# Segments


@pytest.mark.parametrize("stream", get_args(Stream))
def test_a_communication_is_a_segment_by_itself_whatever_stream_it_is_on(stream):
    sent = (Comm("sent", "send", ("pp",), 1.0, stream=stream),)
    layer = Layer("any", (Block("any", Passes(kernel("a") + sent + kernel("b"))),))
    program = woven("F", [layer], [])
    assert [[work.name for work in each.work] for each in program] == [["a"], ["sent"], ["b"]]
    assert [each.stream for each in program] == [COMPUTE, stream, COMPUTE]


def test_a_segment_is_one_communication_or_a_run_of_kernels_of_one_block():
    program = woven("FB", [LAID_OUT], [LAID_OUT])
    found = {str(each.label): each for each in program}
    moving = {name for name, each in found.items() if each.comm is not None}
    assert moving == {"dispatch(F) 0", "combine(F) 0", "dispatch(B) 0", "combine(B) 0"}
    assert {found[name].comm.kind for name in ("combine(B) 0", "dispatch(F) 0")} == {"dispatch"}
    assert all(len(found[name].work) == 1 for name in moving)
    for part in ("attn", "mlp"):
        for phase in "FBW":
            assert found[f"{part}({phase}) 0"].work == kernel(f"{part}({phase})")
    assert found["dispatch(F) 0 layout"].work == kernel("count", stream=COMM)
    assert found["combine(B) 0 layout"].work == kernel("cast", stream=COMM)


def test_loads_are_numbered_in_model_order_forward_ones_first():
    """All segments of a layer that routes meet its own; those of others meet none."""
    program = woven("FB", [DENSE, MOE, MOE], [MOE, DENSE, MOE])
    expected = {("F", 1): 0, ("F", 2): 1, ("B", 0): 2, ("B", 2): 3}
    for each in program:
        side = "F" if each.label.pass_ == "F" else "B"
        assert each.load == expected.get((side, each.label.layer), -1)


def test_layers_that_are_one_object_share_the_tuples_of_their_kernels():
    weaver = Weaver()
    one = weaver.weave([MOE, MOE], [])
    other = weaver.weave([MOE], [MOE])
    runs = [each.work for each in (*one, *other) if str(each.label).startswith("attn(F)")]
    assert len({id(run) for run in runs}) == 1


def test_a_block_that_communicates_inside_takes_a_turn_for_each_run():
    """As tensor parallelism would: gather, attention, scatter; each hides what the other sends."""
    gather, scatter = exchange("gather", "send"), exchange("scatter", "send")
    ops = Passes(
        gather + kernel("a(F)") + scatter + kernel("b(F)"),
        kernel("b(B)") + gather + kernel("a(B)") + scatter,
        kernel("a(W)") + kernel("b(W)"),
    )
    layer = Layer("split", (Block("attn", ops), Block("mlp", half("mlp"))))
    program = woven("FB", [layer], [layer])
    compute = [each.work[0].name for each in program if each.stream == COMPUTE]
    assert compute == ["a(F)", "mlp(B)", "mlp(W)", "b(F)", "b(B)", "mlp(F)", "a(B)", "a(W)"]
    waits_of = {each.work[0].name: each.after for each in program if each.stream == COMPUTE}
    names = [each.work[0].name for each in program]
    assert [names[place] for place in waits_of["b(F)"]] == ["scatter"]
    assert [names[place] for place in waits_of["a(F)"]] == ["gather"]
