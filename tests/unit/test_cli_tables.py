"""The commands calibrate fit, score and report, on a table written by a known cost model."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from hwmodels.chip import CHIPS
from hwmodels.costs import GemmParameters, gemm_time_s
from hwmodels.errors import CalibrationError
from hwmodels.profile import PROFILES
from simulator.cli import moesim

H200 = CHIPS.load("h200")
TRUE = GemmParameters(
    split_k=True, swap_ab=True, launch_s=3e-6, tensor_efficiency=0.8, tile_overhead_cycles=3000,
    sustained_fraction=0.7, wave_quantisation=0.2,
)  # fmt: skip
SITES = [(n, k) for n in (512, 2048, 7168, 18432) for k in (512, 2048, 7168, 16384)]
ROWS = [2**p for p in range(15)]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table of products as AIConfigurator lays them out, timed by `TRUE` and slower below 64."""
    pytest.importorskip("pyarrow", reason="tables are parquet (extra 'store')")
    import pyarrow as pa
    import pyarrow.parquet as pq

    m, n, k = (np.array(c, np.int32) for c in np.transpose([(m, *s) for s in SITES for m in ROWS]))
    formats = {"tensor_family": "bf16", "element_bytes": 2.0, "output_bytes": 2.0}
    time_s = gemm_time_s(H200, TRUE, m, n, k, **formats).time_s * np.where(m < 64, 1.2, 1.0)
    words = {
        "system": "h200_sxm", "framework": "trtllm", "fw_version": "1", "kernel_source": "x",
        "gemm_dtype": "bfloat16",
    }  # fmt: skip
    columns = {name: [word] * len(m) for name, word in words.items()}
    path = tmp_path_factory.mktemp("tables") / "gemm.parquet"
    pq.write_table(pa.table(columns | {"m": m, "n": n, "k": k, "latency_ms": time_s * 1e3}), path)
    return path


@pytest.fixture(scope="module")
def fitted(table):
    """A profile fitted to the table, with its rows beside it."""
    path = table.with_name("mine.toml")
    result = invoke("fit", table, "--rows", "--out", path)
    assert result.exit_code == 0, result.output
    return path


def invoke(*arguments):
    return CliRunner().invoke(moesim, ["calibrate", *map(str, arguments)])


def scored(table, profile):
    found = json.loads(invoke("score", table, "--profile", profile, "--json").output)
    return found["scores"][0]


def test_a_fit_finds_constants_that_price_the_table(fitted, table):
    whole = scored(table, fitted)
    assert whole["family"] == "bf16"
    assert whole["constants"]["rows"] == len(SITES) * len(ROWS)
    assert whole["constants"]["median"] < 0.06
    assert whole["roofline"]["median"] > 0.2


def test_rows_beside_a_profile_correct_what_its_constants_cannot_say(fitted, table):
    whole = scored(table, fitted)
    assert whole["with_rows"]["median"] < 0.6 * whole["constants"]["median"]


def test_a_fitted_profile_trains(fitted):
    """Families that the table does not time follow others, or are the parent's, and say so."""
    from simulator import Experiment, run

    quick = {"batch.sequences": 2048, "plan.schedule": "1f1b", "ranks.draws": 1}
    result = run(
        Experiment.load("deepseek-v3-pretrain").with_overrides(
            quick | {"profile": str(fitted), "cluster.node.chip": "h200"}
        )
    )
    bases = " ".join(result.provenance.time_share_by_basis)
    assert "profile mine" in bases
    assert "transferred from h800-deepseek (h800)" in bases
    assert "transferred from bf16" in bases


def test_what_a_profile_was_measured_on_and_how_is_in_it(fitted):
    profile = PROFILES.load(str(fitted))
    assert (profile.chip, profile.library, profile.version) == ("h200", "trtllm", "1")
    assert profile.envelope["bf16"]["m"] == (1, 16384)
    assert profile.transferred["bf16_grouped"] == "bf16"
    assert 0 < profile.errors["bf16_median"] < 0.1
    source = PROFILES.document(str(fitted)).source_of("gemm.bf16.launch_s")
    assert "on sites left out median |error|" in source.text


def test_a_report_is_one_page_with_its_pictures(fitted, table, tmp_path):
    result = invoke("report", table, "--profile", fitted, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 1
    assert "tile_overhead_cycles" in page
    assert len(list(tmp_path.glob("*.png"))) == 1


def test_a_family_that_a_profile_lacks_is_named(table):
    result = invoke("score", table, "--profile", "h800-deepseek", "--json")
    assert json.loads(result.output)["skipped"] == []
    with pytest.raises(CalibrationError, match="--profile: none is shipped for trtllm 1 on"):
        other(table)


@pytest.fixture(scope="module")
def mixed(table):
    """The same table with 3 rows of a format that no cost model prices, and 2 of another chip."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    products = pq.read_table(table)
    integers = products.slice(0, 3).to_pydict() | {"gemm_dtype": ["int4_wo"] * 3}
    elsewhere = products.slice(0, 2).to_pydict() | {
        "gemm_dtype": ["int8_wo"] * 2, "system": ["h100_sxm"] * 2,
    }  # fmt: skip
    others = [pa.table(columns, schema=products.schema) for columns in (integers, elsewhere)]
    path = table.with_name("mixed.parquet")
    pq.write_table(pa.concat_tables([*others, products]), path)
    return path


UNPRICED = "trtllm 1 on h200: int4_wo: 3 rows, no cost model prices them"
UNPRICED_ELSEWHERE = "trtllm 1 on h100: int8_wo: 2 rows, no cost model prices them"


def test_rows_that_no_cost_model_prices_are_data(mixed, table):
    from calibration.read.tables import read_table

    read = read_table(mixed)
    assert [str(each) for each in read.unpriced] == [UNPRICED_ELSEWHERE, UNPRICED]
    (alone,) = read_table(table).priced
    (among,) = read.priced
    assert np.array_equal(among.time_s, alone.time_s)


def test_a_table_without_a_row_that_has_a_price_is_refused(mixed):
    import pyarrow.parquet as pq

    from calibration.read.tables import read_table

    path = mixed.with_name("integers.parquet")
    pq.write_table(pq.read_table(mixed).slice(0, 3), path)
    with pytest.raises(CalibrationError, match=r"holds no kernel that a cost model prices \(trt"):
        read_table(path)


def test_score_tells_what_it_left_out(mixed, fitted):
    told = json.loads(invoke("score", mixed, "--profile", fitted, "--json").output)
    assert told["skipped"] == [UNPRICED_ELSEWHERE, UNPRICED]
    result = invoke("score", mixed, "--profile", fitted, "--chip", "h200")
    assert result.stderr.splitlines() == [UNPRICED]


def test_fit_and_report_tell_what_they_left_out_of_their_chip(mixed, fitted, tmp_path):
    result = invoke("fit", mixed, "--out", tmp_path / "mine.toml")
    assert result.stderr.splitlines()[0] == UNPRICED
    assert "int8_wo" not in result.stderr
    result = invoke("report", mixed, "--profile", fitted, "--out", tmp_path)
    assert result.stderr.splitlines()[0] == UNPRICED


def other(table):
    """Judge rows of a chip and library that nothing is shipped for."""
    from dataclasses import replace

    from calibration.judge.table_score import judge_tables
    from calibration.read.tables import read_table
    from calibration.rows import Setting, TableRows

    elsewhere = Setting("a100", "trtllm", "1")
    rows = [replace(each, setting=elsewhere) for each in read_table(table).priced]
    judge_tables(TableRows(rows, [], []), None, None, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fit",), "Missing argument 'TABLE...'"),
        (("fit", "nowhere.parquet"), "nowhere.parquet: expected a parquet table, got nothing"),
        (("fit", "x.parquet", "--rows"), "--rows: needs --out"),
        (("score",), "takes tables, or a trace"),
    ],
)
def test_a_wrong_call_is_refused_in_one_line(arguments, message):
    result = invoke(*arguments)
    assert result.exit_code != 0
    assert message in (result.output or "") + str(result.exception)
