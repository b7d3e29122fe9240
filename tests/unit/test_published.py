"""Published figures: every row is there, closed forms round to the printed digit, the headline."""

import math
import tomllib

import pytest

from hwmodels.errors import SpecError
from simulator.experiment import EXPERIMENTS
from simulator.published import reproduce as published
from simulator.published.reproduce import Row, figures, headline, reproduce

TABLE4_PHASES = (
    "forward_s",
    "bubble_s",
    "backward_s",
    "weight_s",
    "backward_plus_weight_s",
    "forward_backward_s",
    "optimizer_s",
)
PROMISED = {
    *(
        f"isca25.table1.{model}.kv_bytes_per_token"
        for model in ("deepseek-v3", "qwen2.5-72b", "llama3.1-405b")
    ),
    *(f"isca25.table2.{m}.training_flops_per_token" for m in ("deepseek-v2", "deepseek-v3")),
    *(
        f"isca25.table4.{network}.{figure}"
        for network in ("mpft", "mrft")
        for figure in (
            "tokens_per_day",
            "step_time_s",
            "tflops_noncausal",
            "tflops_causal",
            "mfu_noncausal",
            "mfu_causal",
            *TABLE4_PHASES,
            *(f"{phase}.rank0" for phase in TABLE4_PHASES),
        )
    ),
    *(
        f"isca25.table4.mpft.{figure}.unlike"
        for figure in (
            "tokens_per_day",
            "step_time_s",
            *TABLE4_PHASES,
            *(f"{phase}.rank0" for phase in TABLE4_PHASES),
        )
    ),
    "v3.cost.gpu_hours_per_trillion_tokens.unlike",
    "isca25.table4.difference_s",
    *(
        f"isca25.ep_limit.{link}.{figure}"
        for link in ("ib-400g", "gb200-nvl72")
        for figure in ("communication_s", "tpot_s", "tokens_per_s")
    ),
    "v3.cost.gpu_hours_per_trillion_tokens",
    "v3.dualpipe.microbatches_in_flight",
    "eplb.example",
    *(
        f"isca25.table3.{fabric}.{figure}"
        for fabric in ("ft2", "mpft", "ft3", "slim-fly", "dragonfly")
        for figure in ("endpoints", "switches", "links", "cost_usd")
    ),
    *(
        f"isca25.table5.{layer}.{leaves}_s"
        for layer in ("ib", "roce")
        for leaves in ("same-leaf", "cross-leaf")
    ),
    *(
        f"isca25.fig5.{network}.{gpus}.alltoall_bytes_per_s"
        for network in ("mpft", "mrft")
        for gpus in (32, 64, 128)
    ),
    *(
        f"{table}.{gpus}.{direction}_bytes_per_s"
        for direction in ("dispatch", "combine")
        for table, sizes in (
            ("isca25.fig7", (16, 32, 64, 128)),
            ("deepep.normal", (8, 16, 32, 64, 128)),
        )
        for gpus in sizes
    ),
    *(
        f"deepep.low-latency.{gpus}.{direction}_s"
        for direction in ("dispatch", "combine")
        for gpus in (8, 16, 32, 64, 128, 256)
    ),
    *(
        f"trace.h800.{figure}"
        for figure in (
            "pair_s",
            "gemm_time_weighted_error",
            "glue_total_s",
            "collective_wait_s",
        )
    ),
}
CLOSED_FORMS = {figure.id: figure for figure in figures() if figure.kind == "closed-form"}


@pytest.fixture(scope="module")
def rows(published_run):
    """All rows, from experiments that other tests have played already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(published.Laboratory, "result", lambda _, name: published_run(name))
        return {row.id: row for row in reproduce()}


def test_every_promised_figure_is_there():
    assert {figure.id for figure in figures()} >= PROMISED


def test_no_id_stands_twice_in_the_files():
    ids = [
        row["id"]
        for path in published.FOLDER.glob("*.toml")
        for row in tomllib.loads(path.read_text(encoding="utf-8"))["figures"]
    ]
    assert len(ids) == len(set(ids)) == len(figures())


def test_every_closed_form_says_to_which_digit_it_was_printed():
    assert [figure.id for figure in CLOSED_FORMS.values() if figure.resolution is None] == []
    assert all(f.resolution is None for f in figures() if f.kind != "closed-form")


@pytest.mark.parametrize("identifier", CLOSED_FORMS)
def test_a_closed_form_rounds_to_the_printed_figure(identifier):
    """In units of the last printed digit; cut off where the source says so."""
    figure = CLOSED_FORMS[identifier]
    (row,) = reproduce([identifier])
    ours, printed = row.simulated / figure.resolution, figure.published / figure.resolution
    digits = math.floor(ours) if figure.truncated else math.floor(ours + 0.5)
    assert digits == round(printed)


def test_every_row_carries_what_the_schema_promises(rows):
    for figure in figures():
        row = rows[figure.id]
        assert row.as_dict() == {
            "id": figure.id,
            "source": figure.source,
            "published": figure.published,
            "simulated": row.simulated,
            "unit": figure.unit,
            "relative_error": row.relative_error,
            "kind": figure.kind,
            "note": figure.note,
            "p10": row.p10,
            "median": row.median,
            "p90": row.p90,
        }
        assert (row.p10 is None) == (not figure.uncertain)
        assert math.isfinite(row.simulated), figure.id
        if figure.published:
            assert row.relative_error == row.simulated / figure.published - 1


def test_rows_of_table_4_are_those_of_the_simulated_step(rows, published_run):
    for network, name in (("mpft", "deepseek-v3-pretrain"), ("mrft", "deepseek-v3-pretrain-mrft")):
        result = published_run(name)
        metrics = result.metrics
        prefix = f"isca25.table4.{network}"
        assert rows[f"{prefix}.step_time_s"].simulated == metrics.step_time_s
        assert rows[f"{prefix}.tokens_per_day"].simulated == metrics.tokens_per_day
        for phase in ("forward", "bubble", "backward", "weight", "forward_backward", "optimizer"):
            row, rank0 = rows[f"{prefix}.{phase}_s"], rows[f"{prefix}.{phase}_s.rank0"]
            assert row.simulated == result.phase_s(phase)
            assert rank0.simulated == result.phase_s(phase, rank=0)
            assert row.published == rank0.published
        both = result.phase_s("backward") + result.phase_s("weight")
        assert rows[f"{prefix}.backward_plus_weight_s"].simulated == pytest.approx(both, rel=1e-12)


def test_unlike_rows_of_table_4_are_medians_of_the_run_whose_gpus_differ(rows, published_run):
    intervals = published_run("deepseek-v3-pretrain-uncertain").intervals
    prefix = "isca25.table4.mpft"
    named = {"step_time_s": "step_time_s", "tokens_per_day": "tokens_per_day"}
    for phase in ("forward", "bubble", "backward", "weight", "forward_backward", "optimizer"):
        named[f"{phase}_s"] = f"breakdown_s.{phase}"
    for figure, metric in named.items():
        row, spread = rows[f"{prefix}.{figure}.unlike"], intervals[metric]
        assert [row.p10, row.simulated, row.p90] == pytest.approx(
            [spread.p10, spread.median, spread.p90], rel=1e-12
        )
        assert row.median == row.simulated
        alike = rows[f"{prefix}.{figure}"]
        assert (alike.published, alike.p10) == (row.published, None)


def test_both_runs_of_the_step_count_and_their_notes_say_how_they_were_chosen():
    """Rows of unlike GPUs stand right above those of alike ones, and restate what those do."""
    found = {figure.id: figure for figure in figures()}
    order = list(found)
    pairs = [(found[name], found[f"{name}.unlike"]) for name in found if f"{name}.unlike" in found]
    assert len(pairs) == 17
    for alike, unlike in pairs:
        assert order.index(alike.id) == order.index(unlike.id) + 1
        assert (alike.kind, unlike.kind) == ("predicted", "predicted")
        assert (alike.published, alike.arguments) == (unlike.published, unlike.arguments)
        assert unlike.restates == (alike.restates and f"{alike.restates}.unlike")
        assert "best case" in alike.note
        assert unlike.median
    counted = {unlike.id for _, unlike in pairs if not unlike.restates}
    assert counted == {
        f"isca25.table4.mpft.{name}_s.unlike"
        for name in (
            "step_time",
            "forward",
            "bubble",
            "backward_plus_weight",
            "forward_backward",
            "optimizer",
        )
    }
    assert "chosen after" in found["isca25.table4.mpft.step_time_s.unlike"].note


def test_readings_of_table_4_say_what_the_paper_does_not():
    phases = [f for f in figures() if "table4" in f.id and f.quantity == "step_phase"]
    assert len(phases) == 3 * 14
    for figure in phases:
        assert "the paper does not say which rank it shows" in figure.note
        is_rank_0 = ".rank0" in figure.id
        assert ("came after seeing the table" in figure.note) == is_rank_0
        assert ("mean over pipeline ranks" in figure.note) != is_rank_0


def test_the_cost_of_a_trillion_tokens_follows_from_the_rate(rows, published_run):
    """180,000 GPU-hours printed; 10^12 tokens over tokens/s/GPU over 3600."""
    rate = published_run("deepseek-v3-pretrain").metrics.tokens_per_s_per_gpu
    row = rows["v3.cost.gpu_hours_per_trillion_tokens"]
    assert row.simulated == pytest.approx(1e12 / rate / 3600, rel=1e-12)


def test_figures_that_constants_came_from_do_not_count_as_predicted():
    kinds = {figure.id: figure.kind for figure in figures()}
    assert {kind for name, kind in kinds.items() if name.startswith("trace.h800.")} == {"fitted"}
    step = [name for name in kinds if name.startswith("isca25.table4") and "_s" in name]
    assert {kinds[name] for name in step} == {"predicted"}


def test_a_beginning_names_all_figures_below_it():
    ids = [row.id for row in reproduce(["isca25.table1", "isca25.ep_limit.ib-400g.tpot_s"])]
    assert len(ids) == 4
    assert all(i.startswith(("isca25.table1.", "isca25.ep_limit.ib-400g.tpot_s")) for i in ids)


@pytest.mark.parametrize("name", ["isca25.table", "isca25.table1.deepseek", "table1", ""])
def test_a_name_that_is_no_whole_part_of_an_id_is_refused(name):
    with pytest.raises(SpecError, match="no published figure is or begins with"):
        reproduce([name])


def row(identifier, kind, error):
    return Row(identifier, "source", 1.0, 1.0, "s", error, kind, "")


def test_the_headline_counts_only_what_was_predicted():
    """Closed forms are exact and fitted figures were seen: neither says how well we predict."""
    some = [
        row("exact", "closed-form", 0.0),
        row("seen", "fitted", 0.9),
        row("a", "predicted", -0.2),
        row("b", "predicted", 0.1),
        row("c", "predicted", 0.01),
        row("zero", "predicted", None),
    ]
    assert headline(some) == "3 predicted figures: median |error| 10.0%, worst -20.0% (a)"
    twice = Row("d", "source", 1.0, 2.0, "s", 1.0, "predicted", "", restates="a")
    assert headline([*some, twice]) == headline(some)
    assert headline(some[:2]) == "no predicted figure among these rows"


def test_every_experiment_that_a_figure_names_is_a_preset():
    named = {name for figure in figures() for pair in figure.stand_ins.items() for name in pair}
    assert named <= set(EXPERIMENTS.names())


FIGURE = """
[[figures]]
id = "{id}"
source = "a test"
published = 1
kind = "closed-form"
quantity = "{quantity}"
"""


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([("x", "gpu_hours"), ("x", "gpu_hours")], "x stands twice"),
        ([("x", "gpu_hour")], "no quantity 'gpu_hour'; did you mean 'gpu_hours'?"),
    ],
)
def test_rows_that_stand_twice_or_name_no_quantity_are_refused(
    tmp_path, monkeypatch, texts, message
):
    text = "".join(FIGURE.format(id=name, quantity=quantity) for name, quantity in texts)
    (tmp_path / "some.toml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(published, "FOLDER", tmp_path)
    with pytest.raises(SpecError) as error:
        figures.__wrapped__()
    assert message in str(error.value)
