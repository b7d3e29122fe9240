"""Rows of one chip and library among those of several tables."""

import re
from dataclasses import replace

import pytest

from calibration.read.select import of_one_setting
from calibration.rows import Setting
from hwmodels.errors import CalibrationError
from tests.timed import stream_rows

H100 = Setting("h100", "trtllm", "1")
CAST = replace(stream_rows(6), setting=H100)
NEWER = replace(stream_rows(4), setting=Setting("h100", "trtllm", "2"))
OTHER = replace(stream_rows(6), setting=Setting("h100", "sglang", "1"))
ELSEWHERE = replace(stream_rows(6), setting=Setting("h200", "trtllm", "1"))


def test_what_is_asked_for_counts():
    assert of_one_setting([CAST, OTHER, ELSEWHERE], "h100", "trtllm", None) == [CAST]
    assert of_one_setting([CAST, NEWER], None, None, "2") == [NEWER]


def test_a_family_of_two_versions_is_of_the_one_with_most_rows():
    assert of_one_setting([NEWER, CAST], None, None, None) == [CAST]
    norms = replace(NEWER, family="add_norm")
    assert of_one_setting([CAST, norms], None, None, None) == [CAST, norms]


@pytest.mark.parametrize(
    ("tables", "asked", "message"),
    [
        ([CAST, ELSEWHERE], (None, None, None), "--chip: the tables have h100, h200; got more"),
        ([CAST, OTHER], ("h100", None, None), "--library: the tables have sglang, trtllm; got"),
        ([CAST], ("b200", None, None), "--chip: the tables have h100; got none"),
        ([CAST], ("h100", "vllm", None), "--chip: the tables have h100; got none"),
    ],
)  # fmt: skip
def test_rows_of_several_settings_or_of_none_are_refused(tables, asked, message):
    with pytest.raises(CalibrationError, match=re.escape(message)):
        of_one_setting(tables, *asked)


def test_tables_of_several_kernels_at_once_are_nothing_to_fit():
    with pytest.raises(CalibrationError, match="several kernels at once only"):
        of_one_setting([], None, None, None)
