"""An engine of the chip that moves what exchanges move, in place of SMs."""

from dataclasses import replace

import pytest

from hwmodels.cluster import CLUSTERS
from hwmodels.errors import InputError, SpecError
from hwmodels.library import LIBRARIES
from simulator import Experiment, run
from simulator.driver.point import point_of
from simulator.network.exchange_pricer import ExchangeRates
from simulator.network.machine import Machine
from simulator.network.moe_exchange import ExpertTraffic, moe_exchange

ENGINE = "cluster.node.chip.exchange_engine"
PRESET = Experiment.load("deepseek-v3-pretrain")
WITH = PRESET.with_overrides({ENGINE: True})


def with_engine(cluster):
    chip = cluster.node.chip.model_copy(update={"exchange_engine": True})
    return cluster.model_copy(update={"node": cluster.node.model_copy(update={"chip": chip})})


@pytest.mark.parametrize("lent", [0.0, 0.5, 1.0])
def test_compute_has_all_sms(lent):
    """Beside communication and alone, whatever was lent."""
    own = WITH.with_overrides({"communication.lent_sms": lent})
    assert (own.held_sms, own.compute_sms, own.alone_sms) == (0, 132, 132)
    assert (PRESET.held_sms, PRESET.compute_sms) == (20, 112)
    point = point_of(own)
    assert point.pricer.kernels == point.pricer.alone == replace(point.pricer.kernels, sms=132)


@pytest.mark.parametrize("sms", [1, 10, 20, 132])
def test_links_are_as_busy_as_enough_sms_keep_them(sms):
    """Rates, notification and what compute beside it does to an exchange are the library's."""
    library = PRESET.profile.communication
    saturated, engine = (
        ExchangeRates.of(Machine.of_ports(cluster, library, given), [1, 8])
        for cluster, given in ((PRESET.cluster, 20), (WITH.cluster, sms))
    )
    assert engine.ports == saturated.ports
    for name in ("dispatch_beside_compute", "combine_beside_compute", "basis"):
        assert getattr(engine, name) == getattr(saturated, name)


def test_sms_that_nothing_holds_are_told():
    assert WITH.notes == (
        "communication.sms: none are held, cluster.node.chip.exchange_engine moves tokens in "
        "their place",
    )
    assert WITH.with_overrides({"communication.sms": 0}).notes == ()
    assert PRESET.notes == ()


def test_no_sms_without_an_engine_are_refused():
    with pytest.raises(SpecError) as caught:
        PRESET.with_overrides({"communication.sms": 0})
    assert str(caught.value) == (
        "communication.sms: at least 1 without cluster.node.chip.exchange_engine, got 0"
    )
    dense = {"plan.ep": 1, "model": "llama3.1-405b", "communication.sms": 0}
    assert PRESET.with_overrides(dense).compute_sms == 132


def test_a_step_is_shorter_by_what_its_kernels_are_on_all_sms():
    """Communication takes as long by itself; compute is quicker, by at most 132 / 112."""
    plain, engine = (run(each.with_overrides({"batch.sequences": 4096})) for each in (PRESET, WITH))
    step_s = [each.metrics.step_time_s for each in (plain, engine)]
    assert step_s[1] < step_s[0] < step_s[1] * 132 / 112


@pytest.mark.parametrize("direction", ["dispatch", "combine"])
def test_channels_never_bind(direction):
    """On H200, 8 GPUs: a few SMs are the slowest, an engine leaves NVLink and the latency."""
    cluster, library = CLUSTERS.load("h200-2048"), LIBRARIES.load("deepep-h200")
    traffic = ExpertTraffic(8)

    def timed(of, sms):
        return moe_exchange(direction, "normal", traffic, of, library, sms=sms)

    few, engine = timed(cluster, 4), timed(with_engine(cluster), 0)
    assert few.slowest == "channels"
    assert engine.slowest == "nvlink out of gpu 0"
    work = library.exchange.work(direction)
    token_bytes = 7168 * (1 + 4 / 128) if direction == "dispatch" else 7168 * 2
    empty_s = work.latency_s + token_bytes / (work.fill_bytes_per_s or float("inf"))
    nvlink_s = engine.nvlink_bytes / library.exchange.nvlink_bytes_per_s
    assert engine.time_s == pytest.approx(empty_s + nvlink_s, rel=1e-9)
    assert timed(with_engine(cluster), 4) == engine
    with pytest.raises(InputError, match="sms: must be 1 to 132, got 0"):
        timed(cluster, 0)
