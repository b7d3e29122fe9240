"""Mistakes that must be visible: each simulator here is wrong on purpose, and its step says so.

A model that could leave out a quarter of its kernels unnoticed would not be checked by anything.
"""

import pytest

from simulator import Experiment, run
from simulator.driver import program
from simulator.price import kernels
from simulator.tell.facts.parts import Parts
from workloads.ops import Comm, Gemm, MemoryOp
from workloads.recipes import Passes


def simulate(**changes):
    values = {"batch.sequences": 4096} | {path.replace("__", "."): v for path, v in changes.items()}
    return run(Experiment.load("deepseek-v3-pretrain").with_overrides(values))


@pytest.fixture(scope="module")
def sound(short_run):
    """The step as it should be."""
    return short_run()


@pytest.fixture(autouse=True)
def _nothing_is_remembered(sound, monkeypatch):
    """Neither kernels nor their prices from before a mistake, nor mistaken ones after it."""
    for module, name in ((program, "training_program"), (kernels, "_by_family")):
        monkeypatch.setattr(module, name, getattr(module, name).__wrapped__)


def part_s(result, name):
    return result.fact(Parts)[name].duration_s


def test_a_step_without_glue_is_more_than_15_percent_too_short(sound, monkeypatch):
    """28 % of compute are casts, norms, copies, permutes (table4_chain.md §1, §6)."""
    of = Passes.of

    def without_glue(self, phase):
        return tuple(op for op in of(self, phase) if not isinstance(op, MemoryOp))

    monkeypatch.setattr(Passes, "of", without_glue)
    assert simulate().metrics.step_time_s < 0.85 * sound.metrics.step_time_s


def test_twice_the_bytes_on_the_network_slow_a_forward_alone(sound, monkeypatch):
    """Its exchanges are exposed: four layers of dispatch and combine, a third of its time."""
    once = Comm.token_bytes
    monkeypatch.setattr(Comm, "token_bytes", property(lambda self: 2 * once.fget(self)))
    doubled = simulate()
    assert part_s(doubled, "F 1") > 1.3 * part_s(sound, "F 1")
    assert part_s(doubled, "W 1") == part_s(sound, "W 1")


def test_weight_gradients_at_the_rate_of_input_gradients_are_a_quarter_too_fast(sound, monkeypatch):
    """FP32 accumulation costs a third of the rate (table4_chain.md §1: 2/3 of dgrad)."""
    family = Gemm.family

    def mistaken(self):
        return family.fget(self).replace("fp8_block_wgrad", "fp8_block")

    monkeypatch.setattr(Gemm, "family", property(mistaken))
    wrong = simulate()
    assert part_s(wrong, "W 1") < 0.75 * part_s(sound, "W 1")
    assert wrong.breakdown_s["weight"] < 0.8 * sound.breakdown_s["weight"]
    assert part_s(wrong, "F 1") == pytest.approx(part_s(sound, "F 1"), rel=0.02)


def test_heads_on_another_stage_change_the_step(sound):
    """Layout C of table4_chain.md §4: both heads beside MTP and three layers add 3.9 s to 18.4."""
    crowded = simulate(plan__layout="3d+1m, 12*4m, 2*3m, 3m+mtp+2heads")
    assert crowded.metrics.step_time_s > 1.1 * sound.metrics.step_time_s
