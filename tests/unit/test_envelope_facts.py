"""What a result says of kernels priced outside the rows that their constants come from."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from hwmodels.formats import FORMATS
from hwmodels.profile import PROFILES
from simulator.tell.facts.envelope import Envelope, Excess, _excess
from workloads.ops import Gemm

VOCABULARY, HIDDEN = 129280, 7168
ALL = (0.0, 1e18)


def told(short_run, envelope, transferred=None):
    """Return what a step says whose profile has an envelope."""
    changes = {"profile.envelope": envelope, "profile.transferred": transferred or {}}
    return short_run(*((path, Frozen(values)) for path, values in changes.items())).fact(Envelope)


class Frozen(dict):
    """A table that a cache can have as its key."""

    def __hash__(self) -> int:
        return hash(json.dumps(self))


def test_without_an_envelope_nothing_is_said(short_run):
    assert short_run().fact(Envelope) is None


def test_sizes_inside_are_not_told(short_run):
    assert told(short_run, {"bf16": {"m": ALL, "n": ALL, "k": ALL}}) is None


def test_sizes_at_an_end_of_their_range_are_inside(short_run):
    """Products of the head have vocabulary and width as n and k, then k and n, then m and n."""
    ends = {"m": (1, VOCABULARY), "n": (HIDDEN, VOCABULARY), "k": (1, VOCABULARY)}
    assert told(short_run, {"bf16": ends}) is None


def test_a_size_outside_is_told_with_the_time_of_its_kernels_alone(short_run, short_played):
    envelope = {"bf16": {"n": (32, VOCABULARY - 1)}}
    (outside,) = told(short_run, envelope).outside
    assert (outside.family, outside.size, outside.value) == ("bf16", "n", VOCABULARY)
    assert (outside.least, outside.most) == (32, VOCABULARY - 1)
    timed = short_played().op_seconds
    wide = {op.op.name: op.seconds for op in timed if getattr(op.op, "n", 0) == VOCABULARY}
    assert outside.example in wide
    share = sum(wide.values()) / sum(op.seconds for op in timed)
    assert outside.compute_share == pytest.approx(share, rel=1e-12)
    assert 0 < share < 1


def test_a_family_is_judged_by_the_rows_of_the_one_its_constants_were_taken_from(short_run):
    rows = {"fp8_block": {"k": (1, 20)}}
    alone = told(short_run, rows)
    assert [each.family for each in alone.outside] == ["fp8_block"]
    both = told(short_run, rows, {"fp8_block_wgrad": "fp8_block"})
    assert {each.family for each in both.outside} == {"fp8_block", "fp8_block_wgrad"}
    shares = [each.compute_share for each in both.outside]
    assert shares == sorted(shares, reverse=True)


def test_a_family_has_its_own_sizes_before_those_of_another():
    profile = PROFILES.load("h800-deepseek").model_copy(
        update={
            "envelope": {"fp8_block": {"k": (1, 2)}, "bf16": {"k": (3, 4)}},
            "transferred": {"bf16": "fp8_block", "bf16_grouped": "fp8_block", "cast": "a chip"},
        }
    )
    families = ("fp8_block", "bf16", "bf16_grouped", "cast", "copy")
    sizes = [profile.fitted_sizes(family) for family in families]
    assert sizes == [{"k": (1, 2)}, {"k": (3, 4)}, {"k": (1, 2)}, {}, {}]


@given(
    m=st.integers(1, 10**6),
    n=st.integers(1, 10**6),
    ends=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)),
)
def test_what_is_told_is_the_farthest_size_outside(m, n, ends):
    least, most = sorted(ends)
    op = Gemm("product", m=m, n=n, k=64, format=FORMATS["bf16"])
    excess = _excess(op, {"m": (least, most), "n": (least, most)})
    inside = {"m": least <= m <= most, "n": least <= n <= most}
    assert (excess is None) == all(inside.values())
    if excess is None:
        return
    assert not inside[excess.size]
    assert excess.times > 1
    others = [Excess("product", name, size, least, most) for name, size in (("m", m), ("n", n))]
    assert excess.times == max(other.times for other in others if not inside[other.size])


def test_a_terminal_shows_value_and_range(short_run):
    text = io.StringIO()
    told(short_run, {"bf16": {"n": (32, 65536)}}).show(Console(file=text, width=300))
    assert "bf16 outside the rows that its constants come from" in text.getvalue()
    assert "has n 129,280, they have 32 to 65,536" in text.getvalue()
