"""Laws of a sweep's winners over random rows."""

from dataclasses import replace
from math import exp, log
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.judge.winners import winners
from calibration.measure.measurement import Measurement, shape_text

CONFIGS = ("", '{"rows":8}', '{"rows":32}')
SHAPES = ({"m": 4096, "k": 512}, {"m": 8192, "k": 512}, {"m": 16, "k": 512})

times = st.floats(0.5, 2.0)
cells = st.tuples(st.sampled_from(CONFIGS), st.sampled_from(SHAPES), st.booleans(), times)


def row(config: str, shape, ok: bool, time_s: float) -> Measurement:
    """A row of `quantize` with quantiles 10 % off, or one that failed."""
    p20_s, p80_s = 0.9 * time_s, 1.1 * time_s
    timed = (time_s, p20_s, p80_s) if ok else (None, None, None)
    return Measurement(
        "quantize", "moesim", "triton", "3.6.0", shape_text(shape), "isolated", 0, 132, 0, *timed,
        30, 0.0, 1.0, None, None, None, "a GPU", "1", "2.11", "3.6.0", "2026-01-01", config,
        "" if ok else "RuntimeError",
    )  # fmt: skip


sweeps = st.lists(cells, max_size=12).map(lambda given_: [row(*cell) for cell in given_])
whole = st.lists(times, min_size=9, max_size=9).map(
    lambda t: [
        row(config, shape, True, t[3 * i + j])
        for i, config in enumerate(CONFIGS)
        for j, shape in enumerate(SHAPES)
    ]
)


@given(whole)
def test_a_winner_is_faster_than_the_present_choice_by_more_than_both_spread(rows) -> None:
    """Over a class: geometric mean of its p80 below that of the present's p20; slower at none."""
    large = [row for row in rows if '"m":16' not in row.shape]
    for found, members in zip(
        winners(rows), ([row for row in rows if row not in large], large), strict=True
    ):
        mine = [row for row in members if row.config == found.config]
        present = [row for row in members if not row.config]
        assert found.time_s == pytest.approx(exp(fmean(log(row.time_s) for row in mine)))
        assert found.present_s == pytest.approx(exp(fmean(log(row.time_s) for row in present)))
        if found.stays:
            continue
        assert fmean(log(r.p80_s) for r in mine) < fmean(log(r.p20_s) for r in present)
        assert all(a.p20_s <= b.p80_s for a, b in zip(mine, present, strict=True))


@given(sweeps, st.data())
def test_the_order_of_rows_does_not_matter(rows, data) -> None:
    assert winners(data.draw(st.permutations(rows))) == winners(rows)


@given(sweeps)
def test_a_winner_never_failed_in_its_class_and_ran_wherever_the_present_did(rows) -> None:
    for found in winners(rows):
        members = [
            row for row in rows if ('"m":16' in row.shape) == (found.shape_class == "m<=512")
        ]
        timed = {c: {r.shape for r in members if r.config == c and r.time_s} for c in CONFIGS}
        swept = timed[""] & {row.shape for row in members if row.config}
        assert swept
        assert swept <= timed[found.config]
        if not found.stays:
            assert {r.shape for r in members if r.config == found.config} == timed[found.config]


@given(whole, st.floats(1e-6, 1e3))
def test_a_device_slower_by_a_factor_has_the_same_winners(rows, factor: float) -> None:
    slower = [
        replace(r, time_s=r.time_s * factor, p20_s=r.p20_s * factor, p80_s=r.p80_s * factor)
        for r in rows
    ]
    for here, there in zip(winners(rows), winners(slower), strict=True):
        near = [r.time_s for r in rows]  # a tie to the last digit may fall either way
        if here.config != there.config:
            assert any(
                a / b == pytest.approx(1.1 / 0.9, rel=1e-9) for a in near for b in near if a > b
            )
        else:
            assert there.time_s == pytest.approx(here.time_s * factor)


@given(whole, times)
def test_a_slower_configuration_more_changes_no_winner(rows, time_s: float) -> None:
    slowest = 2.0 + time_s
    more = [row('{"rows":64}', shape, True, slowest) for shape in SHAPES]
    assert winners([*rows, *more]) == winners(rows)
