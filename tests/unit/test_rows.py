"""Timed kernels as columns: rows taken together, and dealt into folds by site."""

import numpy as np
import pytest

from calibration.rows import FOLDS, KernelRows, Setting, sites
from hwmodels.chip import CHIPS
from hwmodels.costs import MemoryParameters

STREAM = MemoryParameters(hbm_efficiency=0.5, launch_s=1e-6)


def rows(count: int, per_site: int = 2) -> KernelRows:
    moved = np.arange(1.0, count + 1) * 1e6
    chip = CHIPS.load("h100")
    return KernelRows(
        setting=Setting("h100", "none", "0"),
        kind="memory_op",
        family="cast",
        shape={"moved_bytes": moved, "launches": 1},
        time_s=1e-6 + moved / (0.5 * chip.hbm_bytes_per_s),
        site=np.arange(count) // per_site,
        size=moved,
        source="by hand",
    )


def test_rows_are_priced_through_the_cost_function_of_their_constants() -> None:
    assert np.allclose(rows(6).log_error(CHIPS.load("h100"), STREAM), 0, atol=1e-12)


def test_rows_taken_keep_what_is_alike_in_all() -> None:
    some = rows(6).take(np.array([0, 5]))
    assert some.shape["moved_bytes"].tolist() == [1e6, 6e6]
    assert some.shape["launches"] == 1
    assert len(some) == 2


@pytest.mark.parametrize("count", [6, 40])
def test_every_row_is_unseen_once_and_no_site_is_on_both_sides(count: int) -> None:
    whole = rows(count)
    folds = whole.folds()
    assert len(folds) == min(FOLDS, count // 2)
    unseen = np.sort(np.concatenate([part.size for _, part in folds]))
    assert unseen.tolist() == whole.size.tolist()
    for seen, part in folds:
        assert not set(seen.site) & set(part.site)


def test_sites_number_distinct_values() -> None:
    assert sites([7, 7, 8, 7], ["a", "b", "a", "a"]).tolist() == [0, 1, 2, 0]
