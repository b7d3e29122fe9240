"""Sampled inputs: which they are, how they are distributed, and who shares draws with whom."""

from statistics import NormalDist

import numpy as np
import pytest

from hwmodels.errors import InputError, SpecError
from simulator import Experiment
from simulator.cli.overrides import parse_override
from simulator.uncertainty import Z90, sample, sampled_inputs, standard_normals

WHOLE = Experiment.load("deepseek-v3-pretrain")
MPFT = WHOLE.with_overrides({"profile.factor": {}, "profile.site_spread": {}})
"""With nothing uncertain but the rate of the head."""

HEAD = "profile.gemm.bf16.sustained_fraction"
LINK = "profile.communication.exchange.dispatch_nic_bytes_per_s"
SIGMA = "ranks.expert_load.sigma"
SMS = "communication.sms"


def valued(value, p10, p90):
    return {"value": value, "p10": p10, "p90": p90, "assumed": "for a test"}


def drawn(draws=64, seed=0, **tables):
    """Draw the preset with inputs by the last key of their path; HEAD is uncertain by itself."""
    paths = {"link": LINK, "sigma": SIGMA, "sms": SMS, "head": HEAD}
    values = {paths[name]: table for name, table in tables.items()}
    values |= {"uncertainty.draws": draws, "uncertainty.seed": seed}
    return sample(MPFT.with_overrides(values))


def column(draws, path):
    return draws.values[:, draws.paths.index(path)]


# Which inputs


def test_a_preset_brings_the_distributions_it_stores():
    (only,) = sampled_inputs(MPFT)
    assert (only.path, only.value, only.p10, only.p90) == (HEAD, 0.7268, 0.682, 0.7565)
    assert only.source.startswith("AIConfigurator")
    assert not only.assumed


def test_an_override_of_the_value_loses_its_distribution():
    assert sampled_inputs(MPFT.with_overrides({HEAD: 0.7})) == ()
    assert sampled_inputs(MPFT.with_overrides({"profile": "none"})) == ()


def test_an_override_gives_any_number_a_distribution_with_units():
    text = f"{LINK}={{value='44 GB/s', p10='40 GB/s', p90='368 Gb/s', assumed='half a guess'}}"
    changed = MPFT.with_overrides(dict([parse_override(text)]))
    link = next(each for each in sampled_inputs(changed) if each.path == LINK)
    assert (link.value, link.p10, link.p90) == (44e9, 40e9, 46e9)
    assert (link.source, link.assumed) == ("half a guess", True)


def test_a_distribution_without_width_is_none():
    changed = MPFT.with_overrides({HEAD: valued(0.7, 0.7, 0.7)})
    assert sampled_inputs(changed) == ()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({HEAD: 0.7}, "uncertainty.draws: no input carries a distribution"),
        ({"profile": "none"}, "uncertainty.draws: no input carries a distribution"),
        ({HEAD: valued(0.5, 0.2, 0.8)}, f"p10 of the sampled inputs: .*{HEAD}: .* 0.4, got 0.2"),
        ({HEAD: valued(0.9, 0.8, 1.2)}, f"p90 of the sampled inputs: .*{HEAD}: .* 1, got 1.2"),
        ({"cluster.node.nic.link_bytes_per_s": valued(50e9, 40e9, 60e9)}, "p90 of .*set both"),
        ({"model.name": valued("7", 6, 8)}, "model.name: is not a field of free numbers, got '7'"),
        ({"cluster.node.chip.mma_rows": valued(64, 64, 128)}, "is not a field of free numbers"),
        ({"ranks.seed": valued(1, 0, 2)}, "ranks.seed: decides how draws are made"),
        ({"uncertainty.draws": valued(8, 4, 9)}, "uncertainty.draws: decides how draws are made"),
    ],
)
def test_what_cannot_be_sampled_is_refused_in_one_line(values, message):
    with pytest.raises(SpecError, match=message) as error:
        sample(MPFT.with_overrides({"uncertainty.draws": 4} | values))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("draws", [-1, 100_001, 2.5, True, "many"])
def test_a_number_of_draws_that_cannot_be_is_refused(draws):
    with pytest.raises(InputError, match=r"uncertainty\.draws: "):
        MPFT.with_overrides({"uncertainty.draws": draws})


def test_families_of_kernels_are_as_uncertain_as_their_profile_says():
    families = {each.path.removeprefix("profile.factor."): each for each in sampled_inputs(WHOLE)}
    for family in WHOLE.profile.factor:
        assert (families[family].p10, families[family].p90) == (0.96, 1.04)


def test_every_draw_has_its_own_factors_of_single_shapes_and_another_family_leaves_them():
    draws = sample(WHOLE.with_overrides({"uncertainty.draws": 64}))
    profiles = [draws.drawn(draw).profile for draw in range(64)]
    logs = np.log([profile.chance_factor(0.2, "cast 1x7168") for profile in profiles])
    assert np.unique(logs).size == 64
    assert abs(logs.mean()) < 0.1
    assert 0.15 < logs.std() < 0.25
    others = np.log([profile.chance_factor(0.2, "cast 1x7169") for profile in profiles])
    assert abs(np.corrcoef(logs, others)[0, 1]) < 0.35


def test_without_draws_single_shapes_cost_what_the_constants_say():
    assert WHOLE.profile.site_seed is None
    assert WHOLE.profile.chance_factor(0.2, "cast 1x7168") == 1.0


# How they are distributed


@pytest.mark.parametrize("draws", [1, 7, 256])
def test_every_slice_of_probability_is_drawn_from_once(draws):
    z = standard_normals(HEAD, draws, 0)
    places = np.array([NormalDist().cdf(each) for each in z])
    assert sorted((places * draws).astype(int)) == list(range(draws))


def test_p10_median_and_p90_are_those_that_were_given():
    """4,096 slices: quantiles are met to half a slice, here 0.1 % of the width."""
    draws = drawn(4096, link=valued(44e9, 40e9, 46e9))
    for path, (p10, value, p90) in {
        HEAD: (0.682, 0.7268, 0.7565),
        LINK: (40e9, 44e9, 46e9),
    }.items():
        found = np.quantile(column(draws, path), [0.1, 0.5, 0.9])
        assert found == pytest.approx([p10, value, p90], abs=2e-3 * (p90 - p10))


def test_a_draw_lies_on_the_split_normal_of_its_z():
    draws = drawn(64, head=valued(0.7, 0.6, 0.75))
    z = standard_normals(HEAD, 64, 0)
    expected = 0.7 + z / Z90 * np.where(z > 0, 0.05, 0.1)
    assert column(draws, HEAD) == pytest.approx(expected, rel=1e-12)
    assert NormalDist().cdf(Z90) == pytest.approx(0.9, rel=1e-12)


def test_a_rate_varies_by_factors():
    """Half of it at P10, a quarter two such steps below, never nothing; deviations are logs."""
    draws = drawn(64, link=valued(44e9, 22e9, 45e9))
    z = standard_normals(LINK, 64, 0)
    expected = 44e9 * np.where(z > 0, 45 / 44, 2.0) ** (z / Z90)
    assert column(draws, LINK) == pytest.approx(expected, rel=1e-12)
    own = draws.deviations[:, draws.paths.index(LINK)]
    assert own == pytest.approx(np.log(expected / 44e9), rel=1e-9, abs=1e-12)


def test_a_side_may_have_no_width():
    link = column(drawn(64, link=valued(44e9, 44e9, 46e9)), LINK)
    assert link.min() == 44e9
    assert np.median(link) <= 44.1e9
    assert np.sum(link == 44e9) == 32


def test_draws_beyond_what_a_field_takes_are_moved_to_its_ends():
    """The fraction ends at 1; a spread at 0; a rate of zero is kept away from."""
    draws = drawn(
        512,
        head=valued(0.9, 0.8, 0.99),
        sigma=valued(0.05, 0.0, 0.1),
        link=valued(44e9, 4e9, 46e9),
    )
    head, sigma, link = (column(draws, path) for path in (HEAD, SIGMA, LINK))
    assert head.max() == 1
    assert np.sum(head == 1) > 20
    assert sigma.min() == 0
    assert link.min() == pytest.approx(0.4e9)
    for draw in range(0, 512, 16):
        draws.drawn(draw)


def test_whole_numbers_are_rounded():
    draws = drawn(64, sms=valued(20, 18, 22))
    sms = column(draws, SMS)
    assert np.all(sms == np.round(sms))
    assert len(set(sms)) > 4
    assert {type(draws.numbers(draw)[SMS]) for draw in range(64)} == {int}
    assert draws.drawn(5).communication.sms == sms[5]


# Who shares draws with whom


def test_one_seed_draws_the_same_twice_and_another_does_not():
    once, again, other = (drawn(32, seed, link=valued(44e9, 40e9, 46e9)) for seed in (3, 3, 4))
    assert np.array_equal(once.values, again.values)
    assert once.seeds == again.seeds
    assert not np.any(once.values == other.values)


def test_another_input_leaves_the_draws_of_the_rest_alone():
    alone = drawn(32)
    beside = drawn(32, link=valued(44e9, 40e9, 46e9), sigma=valued(0.08, 0.06, 0.1))
    assert len(beside.inputs) == 3
    assert np.array_equal(column(alone, HEAD), column(beside, HEAD))


def test_experiments_share_the_draws_of_the_inputs_they_share():
    """z is common; each experiment puts it through its own distribution."""
    one = drawn(32, link=valued(44e9, 40e9, 46e9))
    other = drawn(32, link=valued(30e9, 22e9, 34e9))
    assert np.array_equal(column(one, HEAD), column(other, HEAD))
    below = column(one, LINK) < 44e9
    assert np.array_equal(below, column(other, LINK) < 30e9)
    steps = np.log(column(one, LINK) / 44e9) / np.log(np.where(below, 44 / 40, 46 / 44))
    others = np.log(column(other, LINK) / 30e9) / np.log(np.where(below, 30 / 22, 34 / 30))
    assert steps == pytest.approx(others)


def test_inputs_are_independent_of_each_other():
    """Of 1,024 independent pairs the correlation is 0 +- 0.03."""
    draws = drawn(1024, link=valued(44e9, 40e9, 48e9), sigma=valued(0.08, 0.07, 0.09))
    correlation = np.corrcoef(draws.values.T)
    assert np.abs(correlation - np.eye(3)).max() < 0.1


def test_every_draw_takes_its_chances_from_a_seed_of_its_own():
    draws = drawn(64)
    assert len(set(draws.seeds)) == 64
    assert MPFT.ranks.seed not in draws.seeds
    assert draws.drawn(9).ranks.seed == draws.seeds[9]
    other = sample(MPFT.with_overrides({"uncertainty.draws": 64, "ranks.seed": 1}))
    assert not set(draws.seeds) & set(other.seeds)
    assert np.array_equal(draws.values, other.values)


# A drawn experiment


def test_a_drawn_experiment_is_the_one_that_overrides_would_give():
    draws = drawn(8, link=valued(44e9, 40e9, 46e9), sms=valued(20, 18, 22))
    experiment = draws.drawn(3)
    numbers = draws.numbers(3)
    assert sorted(numbers) == sorted([HEAD, LINK, SMS])
    overrides = numbers | {"ranks.seed": draws.seeds[3]}
    assert experiment.model_dump() == draws.experiment.with_overrides(overrides).model_dump()
    assert experiment.profile.gemm["bf16"].sustained_fraction == numbers[HEAD] != 0.7268
    assert draws.experiment.profile.gemm["bf16"].sustained_fraction == 0.7268


def test_a_drawn_experiment_is_held_to_the_rules_between_fields():
    with pytest.raises(SpecError, match="must leave SMs to compute"):
        MPFT.with_numbers({SMS: 132})
    with pytest.raises(SpecError, match="set both"):
        MPFT.with_numbers({"cluster.node.nic.link_bytes_per_s": 60e9})
    both = {"cluster.node.nic.link_bytes_per_s": 60e9, "cluster.fabric.link_bytes_per_s": 60e9}
    assert MPFT.with_numbers(both).cluster.fabric.link_bytes_per_s == 60e9


def test_a_drawn_experiment_keeps_the_sources_of_the_original():
    assert MPFT.with_numbers({HEAD: 0.7}).sources == MPFT.sources
