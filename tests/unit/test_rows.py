"""Timed kernels as columns: rows taken together, and dealt into folds by site."""

import numpy as np
import pytest

from calibration.rows import FOLDS, sites
from hwmodels.chip import CHIPS
from tests.timed import STREAM, stream_rows


def test_rows_are_priced_through_the_cost_function_of_their_constants() -> None:
    assert np.allclose(stream_rows(6).log_error(CHIPS.load("h100"), STREAM), 0, atol=1e-12)


def test_rows_taken_keep_what_is_alike_in_all() -> None:
    some = stream_rows(6).take(np.array([0, 5]))
    assert some.shape["moved_bytes"].tolist() == [1e6, 6e6]
    assert some.shape["launches"] == 1
    assert len(some) == 2


@pytest.mark.parametrize("count", [6, 40])
def test_every_row_is_unseen_once_and_no_site_is_on_both_sides(count: int) -> None:
    whole = stream_rows(count)
    folds = whole.folds()
    assert len(folds) == min(FOLDS, count // 2)
    unseen = np.sort(np.concatenate([part.size for _, part in folds]))
    assert unseen.tolist() == whole.size.tolist()
    for seen, part in folds:
        assert not set(seen.site) & set(part.site)


def test_sites_number_distinct_values() -> None:
    assert sites([7, 7, 8, 7], ["a", "b", "a", "a"]).tolist() == [0, 1, 2, 0]
