"""Values far from every known part: told in one line with the nearest, and run all the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.chip import CHIPS, ChipSpec
from hwmodels.cluster import CLUSTERS
from hwmodels.document import Document
from hwmodels.far_values import FAR, far_values
from hwmodels.spec import build, override
from simulator import Experiment
from simulator.experiment import EXPERIMENTS
from simulator.tell.summary import show_result

HBM = "cluster.node.chip.hbm_bytes_per_s"
KNOWN = {name: CHIPS.load(name).hbm_bytes_per_s for name in CHIPS.names()}


def chip(rate: float) -> tuple[ChipSpec, Document]:
    document = CHIPS.document("h800")
    override(document, ChipSpec, "hbm_bytes_per_s", rate, "--set")
    return build(ChipSpec, document), document


@given(st.floats(1e6, 1e18))
def test_a_value_is_far_exactly_where_all_known_ones_are(rate: float) -> None:
    least, most = min(KNOWN.values()), max(KNOWN.values())
    told = far_values(*chip(rate))
    assert bool(told) == (rate < least / FAR or rate > FAR * most)
    for each in told:
        assert each.path == "hbm_bytes_per_s"
        assert each.nearest == KNOWN[each.known] == (least if rate < least else most)


def test_the_line_names_value_distance_and_the_nearest_part() -> None:
    experiment = Experiment.load("deepseek-v3-pretrain").with_overrides({HBM: "3.35 GB/s"})
    (told,) = experiment.far_values
    least = min(KNOWN, key=KNOWN.__getitem__)
    assert str(told) == (
        f"{HBM}: 3.35 GB/s is {KNOWN[least] / 3.35e9:.3g} times below every known chip, "
        f"the nearest is {told.known} with {KNOWN[least] / 1e12:.4g} TB/s"
    )
    assert KNOWN[told.known] == KNOWN[least]


@pytest.mark.parametrize("name", EXPERIMENTS.names())
def test_presets_are_known_and_need_not_be_read_again(name: str, monkeypatch) -> None:
    experiment = Experiment.load(name)
    monkeypatch.setattr("hwmodels.far_values._preset", None)
    assert experiment.far_values == ()


@pytest.mark.parametrize("name", CLUSTERS.names())
def test_a_known_part_is_far_from_none_whoever_names_it(name: str) -> None:
    document = CLUSTERS.document(name)
    document.given.add("")
    assert far_values(build(CLUSTERS.spec, document), document) == ()


def test_open_tables_and_parts_within_parts_are_looked_at() -> None:
    far = {
        "cluster.node.chip.tensor.bf16": "9 GFLOPS",
        "cluster.node.nic.link_bytes_per_s": "400 Tb/s",
        "cluster.fabric.link_bytes_per_s": "400 Tb/s",
        "profile.communication.message_nic_bytes_per_s": "1 MB/s",
        "profile.launch_gap_s": "1 s",
        "batch.sequences": 7680,
    }
    told = Experiment.load("deepseek-v3-pretrain").with_overrides(far).far_values
    assert {each.path for each in told} == set(far) - {"batch.sequences"}
    kinds = {each.path: each.kind for each in told}
    assert kinds["cluster.node.nic.link_bytes_per_s"] == "node"
    assert kinds["profile.communication.message_nic_bytes_per_s"] == "library"


def test_a_file_of_the_users_is_looked_at_whole(tmp_path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('base = "deepseek-v3-pretrain"\ncluster.node.pcie_bytes_per_s = "63 MB/s"\n')
    (told,) = Experiment.load(file).far_values
    assert told.path == "cluster.node.pcie_bytes_per_s"


def test_a_run_notes_it_and_keeps_it_when_stored(short_run) -> None:
    result = short_run((HBM, "50 GB/s"))
    assert [note.partition(":")[0] for note in result.provenance.notes] == [HBM]
    assert type(result).from_json(result.to_json()).provenance == result.provenance
    assert short_run().provenance.notes == ()


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "chip", "h800", "--set", "chip.hbm_bytes_per_s='3.35 GB/s'"),
        ("show", "cluster", "h800-2048-mpft", "--set", "cluster.node.pcie_bytes_per_s='1 MB/s'"),
        (
            *("collective", "all_to_all", "--ranks", "8", "--bytes", "1 MB"),
            *("--cluster", "h800-2048-mpft", "--set", "cluster.node.pcie_bytes_per_s='1 MB/s'"),
        ),
    ],
)
def test_a_command_warns_in_one_line_on_stderr(invoke, arguments) -> None:
    done = invoke(*arguments)
    assert done.exit_code == 0
    assert done.stderr.startswith("moesim: warning: ")
    assert done.stderr.count("\n") == 1
    assert len(done.stderr) < 300
    assert invoke(*arguments[: arguments.index("--set")]).stderr == ""


def test_several_far_values_are_one_line_with_their_number(
    invoke, monkeypatch, short_simulated
) -> None:
    monkeypatch.setattr("simulator.driver.run.simulate", lambda *_, **__: short_simulated())
    far = ("--set", f"{HBM}='3.35 GB/s'", "--set", "cluster.node.pcie_bytes_per_s='1 MB/s'")
    done = invoke("run", "deepseek-v3-pretrain", *far)
    assert done.stderr.count("\n") == 1
    assert "(and 1 more)" in done.stderr


@pytest.mark.parametrize(
    ("peak", "causal", "words"),
    [
        (100e12, True, "GEMMs in FP8 run at up to 19.8 times it\n"),
        (300e12, False, "6.6 times it, and the full square of attention counts what a causal"),
    ],
)
def test_an_mfu_above_one_says_why(short_run, peak, causal, words) -> None:
    from io import StringIO

    from rich.console import Console

    result = short_run()
    experiment = result.resolved().with_overrides({"cluster.node.chip.tensor.bf16": peak})
    metrics = result.metrics
    scale = 1.05 / (metrics.mfu_causal if causal else metrics.mfu_noncausal)
    changed = {
        "mfu_causal": metrics.mfu_causal * scale,
        "mfu_noncausal": metrics.mfu_noncausal * scale,
    }
    above = result.model_copy(
        update={
            "metrics": metrics.model_copy(update=changed),
            "experiment": experiment.model_dump(mode="json"),
        }
    )
    text, before = StringIO(), StringIO()
    show_result(Console(file=text, width=400), above)
    show_result(Console(file=before, width=400), result)
    assert "MFU above 100 %: it is counted against the BF16 peak, and " in text.getvalue()
    assert words in text.getvalue()
    assert "MFU above" not in before.getvalue()
