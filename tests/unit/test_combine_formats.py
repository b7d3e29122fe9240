"""What comes home in fewer bits: its bytes, who codes it, and what that takes."""

from dataclasses import replace

import numpy as np
import pytest

from hwmodels.errors import SpecError
from hwmodels.formats import FORMATS
from simulator import Experiment, run
from simulator.driver.point import point_of
from simulator.driver.program import program_of
from simulator.experiment import EXPERIMENTS
from simulator.uncertainty import sampled_inputs
from tests.layer_work import sent, v3_site
from workloads.layout import default_layout
from workloads.ops import COMM, COMPUTE, Comm, MemoryOp
from workloads.stages import stage_layers

PRESET = Experiment.load("deepseek-v3-pretrain")
COMBINE, CODEC = "communication.combine", "cluster.node.nic.codec"
OVERHEAD = "communication.codec_overhead"
SIZES = {
    "bf16": 2 * 7168,
    "fp8": 7168 + 56 * 4,
    "logfmt8": 7168 + 56 * 8,
    "logfmt10": 8960 + 56 * 8,
}


def layer_with(**site):
    """A layer of experts of DeepSeek-V3."""
    model, at = v3_site(**site)
    return next(
        layer
        for layer in stage_layers(model, at, default_layout(model, 1))[0]
        if layer.kind == "moe"
    )


def combine(experiment):
    """The distinct combines of a step; forward and backward are one."""
    found = {
        work
        for stage in program_of(experiment).stages
        for layer in stage
        for block in layer.blocks
        for phase in ("F", "B")
        for work in block.ops.of(phase)
        if isinstance(work, Comm) and work.kind == "combine"
    }
    assert {work.name for work in found} == {"combine", "dispatch"}
    assert len({replace(work, name="") for work in found}) == 1
    return next(iter(found))


@pytest.mark.parametrize("name", SIZES)
def test_results_and_gradients_come_home_in_the_format(name):
    """Elements, and what goes with each of the 56 tiles of a token."""
    assert combine(PRESET.with_overrides({COMBINE: name})).size_bytes == SIZES[name]


def test_fp8_is_cast_before_it_leaves_and_back_at_home():
    """4,096 tokens, each on 7.5 GPUs: a row of 2 + 1 bytes an element; both ways alike."""
    plain = layer_with()
    layer = layer_with(combine=FORMATS["fp8_1x128"])
    row = 7168 * 3
    for phase, name in (("F", "combine"), ("B", "dispatch")):
        works = [work for block in layer.blocks for work in block.ops.of(phase)]
        was = [work for block in plain.blocks for work in block.ops.of(phase)]
        casts = [work for work in works if work.name.endswith("home")]
        assert casts == [
            MemoryOp(f"cast for {name} home", "cast", 4096 * 7.5 * row, routed=True, stream=COMM),
            MemoryOp(f"cast back from {name} home", "cast", 4096.0 * row, stream=COMPUTE),
        ]
        exchange = works.index(casts[0]) + 1
        assert works[exchange].kind == "combine"
        assert works[exchange + 1] == casts[1]
        rest = [work for work in works if work not in casts and work != works[exchange]]
        assert rest == [work for work in was if getattr(work, "kind", "") != "combine"]


@pytest.mark.parametrize("name", ["logfmt8", "logfmt10"])
@pytest.mark.parametrize("nic_codec", [False, True])
def test_logfmt_has_no_kernels_of_its_own(name, nic_codec):
    layers = [layer_with(combine=FORMATS[of], nic_codec=nic_codec) for of in ("bf16", name)]
    for phase in ("F", "B"):
        kinds = [[type(work) for work in sent(layer, phase)] for layer in layers]
        assert kinds[0] == kinds[1]


def times(experiment, load=None):
    """Seconds of a combine of a step, in parts."""
    pricer = point_of(experiment).pricer.exchanges
    return pricer.times(combine(experiment), np.ones(64) if load is None else load)


@pytest.mark.parametrize("name", ["logfmt8", "logfmt10"])
@pytest.mark.parametrize("overhead", [0.0, 0.5, 1.0])
def test_coding_by_sms_lengthens_the_time_in_which_a_combine_moves(name, overhead):
    """Of nothing but that; NICs and NVLink carry the bytes of the format."""
    bf16 = times(PRESET)
    coded = times(PRESET.with_overrides({COMBINE: name, OVERHEAD: overhead}))
    share = SIZES[name] / SIZES["bf16"]
    assert coded.latency_s == bf16.latency_s
    assert coded.nic_s == pytest.approx(bf16.nic_s * share, rel=1e-12)
    assert coded.nvlink_s == pytest.approx(bf16.nvlink_s * share, rel=1e-12)
    longest_s = np.maximum(coded.nic_s, coded.nvlink_s)
    assert coded.moving_s == pytest.approx((1 + overhead) * longest_s, rel=1e-12)


@pytest.mark.parametrize("name", ["fp8", "logfmt8", "logfmt10"])
def test_a_codec_of_nics_costs_nothing_and_nvlink_carries_bf16(name):
    bf16, by_gpu = times(PRESET), times(PRESET.with_overrides({COMBINE: name}))
    by_nic = PRESET.with_overrides({COMBINE: name, CODEC: True})
    coded = times(by_nic)
    assert coded.nic_s == by_gpu.nic_s
    assert coded.nvlink_s == bf16.nvlink_s
    assert coded.moving_s == np.maximum(coded.nic_s, coded.nvlink_s)
    works = [
        work
        for layer in program_of(by_nic).stages[0]
        for block in layer.blocks
        for phase in ("F", "B")
        for work in block.ops.of(phase)
    ]
    assert not any(work.name.endswith("home") for work in works)


def test_dispatch_and_bf16_know_of_no_codec():
    """A NIC that can code what nobody codes; an overhead of nothing."""
    idle = PRESET.with_overrides({CODEC: True, OVERHEAD: 3.0})
    assert program_of(idle) is program_of(PRESET)
    assert combine(idle).nvlink_bytes is None
    assert times(idle).moving_s == times(PRESET).moving_s


def test_inside_a_domain_a_codec_of_nics_has_nothing_to_code():
    """Eight GPUs of a node: the bytes of BF16 over NVLink, whatever the format is."""
    small = {"plan.ep": 8, "cluster.node.chip.hbm_capacity_bytes": "8 TB", CODEC: True}
    found = [
        float(times(PRESET.with_overrides(small | {COMBINE: name}), np.ones(8)).seconds)
        for name in SIZES
    ]
    assert len(set(found)) == 1


REFUSED = {
    "no SMs to code with": (
        {COMBINE: "logfmt10", "cluster.node.chip.exchange_engine": True},
        "communication.combine: logfmt10 is coded by SMs of the exchange, in whose place "
        "cluster.node.chip.exchange_engine moves tokens; use bf16 or fp8, or "
        "cluster.node.nic.codec",
    ),
    "switches that would sum logarithms": (
        {COMBINE: "logfmt8", "cluster.fabric.reduction": True},
        "communication.combine: switches with cluster.fabric.reduction sum bf16 or fp8, not "
        "logarithms, got logfmt8",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_nobody_could_code_is_refused(case):
    changes, line = REFUSED[case]
    with pytest.raises(SpecError) as caught:
        PRESET.with_overrides(changes)
    assert str(caught.value) == line


def test_what_can_be_coded_is_taken():
    engine = {"cluster.node.chip.exchange_engine": True}
    PRESET.with_overrides({COMBINE: "logfmt10", CODEC: True} | engine)
    PRESET.with_overrides({COMBINE: "fp8"} | engine)
    PRESET.with_overrides({COMBINE: "fp8", "cluster.fabric.reduction": True})


def test_the_published_range_of_the_overhead_comes_with_a_preset():
    assert "deepseek-v3-pretrain-logfmt10" in EXPERIMENTS.names()
    logfmt = Experiment.load("deepseek-v3-pretrain-logfmt10")
    found = {each.path: (each.p10, each.value, each.p90) for each in sampled_inputs(logfmt)}
    assert found[OVERHEAD] == (0.55, 0.75, 0.95)
    assert OVERHEAD not in {each.path for each in sampled_inputs(PRESET)}


def test_steps_are_in_the_order_of_what_exchanges_cost():
    """Free coding, coding at the least and at the most published cost, and none at all."""

    def step_s(**changes):
        short = PRESET.with_overrides({"batch.sequences": 4096, **changes})
        return run(short).metrics.step_time_s

    free, least, most = (
        step_s(**{COMBINE: "logfmt10", OVERHEAD: overhead}) for overhead in (0.0, 0.5, 1.0)
    )
    assert free < least < most
    assert free < step_s(**{COMBINE: "logfmt10", CODEC: True}) < step_s()
    assert step_s(**{COMBINE: "fp8"}) < step_s()
    assert step_s(**{COMBINE: "logfmt8", OVERHEAD: 0.0}) < free
