"""Rows beside a profile: written, read, refused, and what they add to its prices."""

import re
from pathlib import Path

import numpy as np
import pytest

from calibration.fit.profile_document import ProfileDocument
from hwmodels.chip import CHIPS
from hwmodels.costs import MemoryParameters, kernel_time_s
from hwmodels.errors import SpecError
from hwmodels.measured_rows import COLUMNS, MeasuredFamily, read_rows, write_rows
from hwmodels.profile import PROFILES

H100 = CHIPS.load("h100")
CAST = MemoryParameters(hbm_efficiency=0.8, launch_s=2e-6)
MOVED = np.geomspace(1e6, 1e9, 200)


def rows(factor: float) -> MeasuredFamily:
    shape = {"moved_bytes": MOVED, "launches": np.ones(200)}
    return MeasuredFamily(factor * kernel_time_s(H100, CAST, shape).time_s, shape)


def profile_beside(folder: Path, measured: MeasuredFamily) -> Path:
    """Write a profile of one family, and its rows beside it."""
    head = {"chip": "h100", "library": "x", "version": "0", "communication": "deepep-h800"}
    tables = {"memory_op.cast": CAST.model_dump(exclude_none=True), "interference": {"cast": 1.0}}
    path = folder / "mine.toml"
    document = ProfileDocument("Mine.", {**head, "launch_gap_s": 0.0}, tables)
    path.write_text(document.text(), encoding="utf-8")
    write_rows(path.with_suffix(".csv"), [("cast", measured)])
    return path


def test_rows_survive_the_file(tmp_path):
    words = {"tensor_family": "bf16", "causal": True, "m": np.array([1.0, 2.5]), "k": 7.0}
    path = tmp_path / "rows.csv"
    write_rows(path, [("a", MeasuredFamily(np.array([1e-6, 3.3e-5]), words))])
    (found,) = read_rows(path).values()
    assert found.time_s.tolist() == [1e-6, 3.3e-5]
    assert found.shape["tensor_family"] == "bf16"
    assert found.shape["causal"] is True
    assert found.shape["m"].tolist() == [1.0, 2.5]
    assert found.shape["k"] == 7.0


def test_a_profile_finds_the_rows_that_lie_beside_it(tmp_path):
    profile = PROFILES.load(str(profile_beside(tmp_path, rows(1.3))))
    inside = profile.residual_factor("cast", {"moved_bytes": MOVED, "launches": 1})
    assert np.allclose(inside, 1.3, rtol=0.02)
    assert profile.residual_factor("swiglu", {"moved_bytes": MOVED}) is None


def test_rows_say_nothing_far_from_all_of_them(tmp_path):
    profile = PROFILES.load(str(profile_beside(tmp_path, rows(1.3))))
    far = profile.residual_factor("cast", {"moved_bytes": np.array([1e14]), "launches": 1})
    assert far == pytest.approx(1.0, abs=1e-3)


def test_a_profile_alone_has_no_rows():
    assert PROFILES.load("h800-deepseek").residual_factor("cast", {"moved_bytes": MOVED}) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"expected columns {', '.join(COLUMNS)}"),
        ("a,b\n", "expected columns"),
        ("family,seconds,shape\ncast,1e-6\n", "line 2: expected family, seconds and a shape"),
        ("family,seconds,shape\ncast,x,{}\n", "line 2: expected family, seconds and a shape"),
        ("family,seconds,shape\ncast,-1,\"{\"\"m\"\": 1}\"\n", "line 2: expected a time above 0"),
        ("family,seconds,shape\ncast,nan,\"{\"\"m\"\": 1}\"\n", "line 2: expected a time above 0"),
        ("family,seconds,shape\ncast,1,[1]\n", "line 2: expected a time above 0 and a shape"),
        (
            "family,seconds,shape\ncast,1,\"{\"\"m\"\": 1}\"\ncast,1,\"{\"\"n\"\": 1}\"\n",
            "shapes of the same sizes",
        ),
        (
            'family,seconds,shape\ncast,1,"{""m"": ""a""}"\ncast,1,"{""m"": ""b""}"\n',
            "m: must be the same in all rows",
        ),
        ("family,seconds,shape\ncast,1,\"{\"\"m\"\": {}}\"\n", "m: must be numbers"),
    ],
)  # fmt: skip
def test_a_file_of_something_else_is_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "rows.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=re.escape(message)):
        read_rows(path)


def test_a_folder_is_no_file_of_rows(tmp_path):
    with pytest.raises(SpecError, match=re.escape("expected a CSV file of rows")):
        read_rows(tmp_path)
