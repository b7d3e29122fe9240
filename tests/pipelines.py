"""Pipelines that schedules can run, small enough to try them all."""

from functools import lru_cache

from hypothesis import strategies as st

from hwmodels.errors import InfeasibleError
from workloads.schedules import SCHEDULES

RANKS = range(1, 7)
CHUNKS = (1, 2, 3)


@lru_cache
def runnable(name, most_ranks=RANKS[-1]):
    """Return (pp, microbatches, vpp) that a schedule takes, none said of `vpp` among them."""
    schedule, found = SCHEDULES[name], []
    for pp in (pp for pp in RANKS if pp <= most_ranks):
        least = schedule.minimum_microbatches(pp)
        for microbatches in range(least, least + 2 * pp + 3):
            for vpp in (None, *CHUNKS):
                try:
                    schedule.check(pp, microbatches, vpp)
                except InfeasibleError:
                    continue
                found.append((pp, microbatches, vpp))
    return found


@st.composite
def pipelines(draw, names=tuple(SCHEDULES), most_ranks=RANKS[-1]):
    """The name of a schedule, and ranks, micro-batches and chunks a rank that it can run."""
    name = draw(st.sampled_from(sorted(names)))
    return name, *draw(st.sampled_from(runnable(name, most_ranks)))
