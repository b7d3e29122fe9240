"""Steps that lack something: messages, exchanges, nodes to cross, seconds. They are steps still."""

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.driver.step import play
from simulator.tell.facts.critical_path import critical_path_s
from simulator.tell.trace import StepTrace
from tests.placements import job, jobs

UNLIKE = st.fixed_dictionaries(
    {
        "ranks.jitter": st.sampled_from([0.0, 0.05]),
        "ranks.gpu_speed_sigma": st.sampled_from([0.0, 0.03]),
        "ranks.expert_load.correlation": st.sampled_from([0.0, 0.7]),
    }
)


@st.composite
def troubled(draw, changes):
    """What sets links apart, on a cluster that `changes` made."""
    nodes, nics = changes["cluster.nodes"], changes["cluster.node.nics"]
    trouble = {
        "communication.routing": draw(st.sampled_from(["adaptive", "ecmp", "static"])),
        "cluster.fabric.switch_radix": 64,
    }
    if draw(st.booleans()):
        node, nic = draw(st.integers(0, nodes - 1)), draw(st.integers(0, nics - 1))
        left = draw(st.sampled_from(["0.5", "0.1"]))
        trouble["cluster.faults"] = f"nic:{node}.{nic}={left}"
    if draw(st.booleans()):
        trouble["cluster.fabric.oversubscription"] = 3.0
    return trouble


@given(jobs(), UNLIKE, st.data())
@settings(max_examples=25)
def test_a_step_without_messages_works_whatever_ails_the_network(changes, unlike, data):
    """One pipeline rank, in every way to play it: no message is sent, and nothing is waited for."""
    single = changes | {"plan.pp": 1, "plan.schedule": data.draw(st.sampled_from(["1f1b", "zb1p"]))}
    played = play(job(single | unlike | data.draw(troubled(single))))
    assert len(played.pipeline.links.sender) == 0
    assert (played.times.phases["bubble"] >= -1e-12).all()
    assert np.isfinite(played.times.step_s)
    shared = play(job(single | {"communication.nics": "shared"}))
    assert shared.times.step_s > 0


@given(jobs(), UNLIKE, st.data())
@settings(max_examples=20)
def test_segments_of_no_time_have_no_share_of_the_critical_path(changes, unlike, data):
    """On a roofline launches take none. What is left sums to the step."""
    roofline = {"profile": "none", "ranks.play": "explicit"}
    given = job(changes | roofline | unlike | data.draw(troubled(changes)))
    played = play(given, critical=True)
    path = critical_path_s(played.lowered, played.folded.prices, played.explicit)
    assert sum(path.values()) == pytest.approx(played.explicit.step_s, rel=1e-9)
    assert min(path.values()) >= 0


def test_kernels_of_no_time_are_written_as_spans_of_none(tmp_path):
    """Without a warning of numpy's, and at finite times."""
    for changes in ({}, {"ranks.jitter": 0.05}):
        experiment = {"plan.pp": 2, "plan.ep": 2, "plan.dp": 2, "cluster.nodes": 1}
        step = play(job(experiment | {"batch.sequences": 8, "profile": "none"} | changes))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            StepTrace(step).to_chrome_trace(tmp_path / "trace.json", detail="kernels")
        events = json.loads((tmp_path / "trace.json").read_text(encoding="utf-8"))["traceEvents"]
        lengths = [event["dur"] for event in events if event["ph"] == "X"]
        assert min(lengths) == 0
        assert np.isfinite(lengths).all()


@given(jobs())
@settings(max_examples=10)
def test_a_group_of_one_gpu_exchanges_nothing_and_computes_on_all_sms(changes):
    """No exchange takes time, and no SM is kept for one."""
    alone = changes | {"plan.ep": 1}
    played = play(job(alone | {"communication.sms": 20}))
    for chunk in played.parts.values():
        exchanges = [segment.comm is not None for segment in chunk.graph.segments]
        assert not chunk.seconds[exchanges].any()
    assert played.experiment.compute_sms == played.experiment.cluster.node.chip.sms
    more = play(job(alone | {"communication.sms": 60}))
    assert more.times.step_s == played.times.step_s
