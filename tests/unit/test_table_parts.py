"""Rows of a table by the words in it: every row once, numbers that can be multiplied, and one line
for what is none.
"""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.read.settings import WHERE, parts
from calibration.read.tables import gemm, layouts
from calibration.rows import Setting
from hwmodels.errors import CalibrationError

TABLE = {
    "system": np.array(["h200_sxm", "h100_sxm", "h200_sxm"]),
    "framework": np.array(["trtllm"] * 3),
    "fw_version": np.array(["1", "1", "1"]),
    "gemm_dtype": np.array(["bfloat16"] * 3),
    "m": np.array([60000, 2, 3], np.int32),
    "n": np.array([60000, 5, 6], np.int32),
    "k": np.array([64, 64, 128], np.int32),
    "latency_ms": np.array([2.0, 0.5, 1.0]),
}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy")), max_size=20))
def test_every_row_is_in_one_part_and_parts_are_in_order(keys):
    columns = {
        "first": np.array([key[0] for key in keys], "U1"),
        "second": np.array([key[1] for key in keys], "U1"),
        "row": np.arange(len(keys)),
    }
    found = list(parts(columns, ("first", "second"), "t"))
    words = [tuple(part.words.values()) for part in found]
    assert words == sorted(set(keys))
    rows = {row: key for key, part in zip(words, found, strict=True) for row in part.columns["row"]}
    assert [rows[row] for row in range(len(keys))] == keys
    for part in found:
        assert (np.diff(part.columns["row"]) > 0).all()


def test_a_part_has_setting_sizes_and_seconds():
    h100, h200 = parts(TABLE, WHERE, "t")
    assert h100.setting() == Setting("h100", "trtllm", "1")
    assert h200.setting() == Setting("h200", "trtllm", "1")
    m, n = h200.sizes("m", "n")
    assert (m * n).tolist() == [3.6e9, 18]  # beyond what 32 bits hold
    assert h200.seconds().tolist() == [2e-3, 1e-3]
    assert h100.columns["gemm_dtype"].tolist() == ["bfloat16"]


@pytest.mark.parametrize(("name", "unit_s"), [("t_ms", 1e-3), ("t_us", 1e-6)])
def test_the_name_of_a_column_of_times_says_its_unit(name, unit_s):
    (part,) = parts({"w": np.array(["a"]), name: np.array([3.0])}, ("w",), "t")
    assert part.seconds(name).tolist() == [3 * unit_s]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latency_ms": np.array([1.0, 0.0, 1.0])}, "latency_ms: must be a time above 0, got 0.0"),
        ({"latency_ms": np.array([1.0, np.nan, 1])}, "latency_ms: must be a time above 0, got nan"),
        ({"latency_ms": np.array([1.0, np.inf, 1])}, "latency_ms: must be a time above 0, got inf"),
        ({"latency_ms": np.array([1.0, None, 1.0])}, "latency_ms: must be a time above 0, got nan"),
        ({"latency_ms": np.array(["1", "2", "x"])}, "latency_ms: must be a time above 0, got 2"),
        ({"m": np.array([1, 0, 1])}, "m: must be at least 1, got 0.0"),
        ({"k": np.array([64, None, 64])}, "k: must be at least 1, got nan"),
        ({"system": np.array(["h200_sxm", "abacus_sxm", "h200_sxm"])}, "no chip preset for it ("),
    ],
)
def test_what_is_no_size_no_time_and_no_chip_is_refused_in_one_line(change, message):
    with pytest.raises(CalibrationError, match=re.escape(message)) as error:
        gemm.rows(TABLE | change, "some.parquet")
    assert str(error.value).startswith("some.parquet: ")
    assert "\n" not in str(error.value)


def test_the_layout_with_most_columns_that_a_table_has_is_its_own():
    known = layouts()
    assert len({layout.columns for layout in known}) == len(known)
    for layout in known:
        first = next(other for other in known if other.columns <= layout.columns)
        assert first is layout
