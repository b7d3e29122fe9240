"""Reading tables of timed exchanges: what is in a row, and what is no table."""

from pathlib import Path

import numpy as np
import pytest

from calibration.read.deepep_rows import DeepEpRows, read_low_latency, read_normal
from hwmodels.errors import CalibrationError

pa = pytest.importorskip("pyarrow", reason="needs pyarrow (extra 'store')")

ROW = {
    "system": ["h200_sxm", "h200_sxm", "b200_sxm"],
    "fw_version": ["1", "2", "1"],
    "node_num": [1, 4, 1],
    "hidden_size": [7168, 7168, 2048],
    "num_topk": [8, 8, 2],
    "num_experts": [256, 256, 8],
    "num_token": [16, 4096, 128],
    "dispatch_transmit_us": [20.0, 900.0, 30.0],
    "combine_transmit_us": [30.0, 1800.0, 40.0],
    "dispatch_notify_us": [0.0, 55.0, 0.0],
    "combine_notify_us": [0.0, 60.0, 0.0],
    "dispatch_sms": [20, 24, 4],
    "combine_sms": [20, 24, 8],
}


def table(folder: Path, **changes: list[object]) -> Path:
    import pyarrow.parquet as pq

    path = folder / "rows.parquet"
    pq.write_table(pa.table(ROW | changes), path)
    return path


def test_rows_are_columns_in_base_units(tmp_path: Path) -> None:
    rows = read_normal(table(tmp_path))
    assert rows.time_s["dispatch"].tolist() == pytest.approx([20e-6, 900e-6, 30e-6])
    assert rows.notify_s["combine"].tolist() == pytest.approx([0.0, 60e-6, 0.0])
    assert rows.sms["combine"].tolist() == [20, 24, 8]
    assert rows.of("h200_sxm", "2").tokens.tolist() == [4096]
    assert rows.shape_number.tolist() == [1, 2, 0]


def test_shapes_carry_the_copies_of_deepeps_own_routing(tmp_path: Path) -> None:
    """One node: eight of 256 experts hit 5.29 of 8 GPUs. Four: 3.62 nodes, one of four its own."""
    rows: DeepEpRows = read_normal(table(tmp_path))
    dispatch, combine = rows.normal("dispatch"), rows.normal("combine")
    assert dispatch.token_bytes.tolist() == [7392, 7392, 2112]
    assert combine.token_bytes.tolist() == [14336, 14336, 4096]
    assert dispatch.node_copies == pytest.approx([0, 3.62 * 3 / 4, 0], rel=2e-3)
    assert dispatch.gpu_copies == pytest.approx([5.29, 7.27, 2.0], rel=2e-3)
    assert rows.low_latency("dispatch", 132).sms_used == pytest.approx([128, 128, 8])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dispatch_transmit_us": [1.0, 0.0, 1.0]}, "no usable rows"),
        ({"combine_transmit_us": [1.0, float("nan"), 1.0]}, "no usable rows"),
    ],
)
def test_times_that_are_none_are_refused(
    tmp_path: Path, changes: dict[str, list[object]], message: str
) -> None:
    with pytest.raises(CalibrationError, match=message):
        read_normal(table(tmp_path, **changes))


def test_other_tables_and_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"lacks .*dispatch_avg_t_us|another file"):
        read_low_latency(table(tmp_path))
    text = tmp_path / "rows.csv"
    text.write_text("a,b\n1,2\n", encoding="ascii")
    for path in (text, tmp_path / "nowhere.parquet"):
        with pytest.raises(CalibrationError, match="expected a parquet table, got") as caught:
            read_normal(path)
        assert np.char.count(str(caught.value), "\n") == 0
