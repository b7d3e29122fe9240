"""The command `run`: documents on stdout, messages on stderr; and the exit code of any command."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hwmodels.errors import DeadlockError, InfeasibleError
from simulator import cli
from simulator.cli.output import track_draws
from simulator.driver.run import Simulated
from simulator.tell.result import Result
from workloads.schedules import SCHEDULES

CHECKOUT = Path(__file__).resolve().parents[2]
HEAD = "profile.gemm.bf16.sustained_fraction"
SHORT = ["--set", "batch.sequences=4096"]


@pytest.fixture
def main(monkeypatch, capsys):
    """Run the whole command in this process; returns exit code, stdout, stderr."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["moesim", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        return stopped.value.code, captured.out, captured.err

    return call


@pytest.fixture
def played(monkeypatch, short_simulated):
    """Let `run` take a result that is already there; collects the experiments it was asked for."""
    asked = []

    def take(experiment, *_, **__):
        asked.append(experiment)
        return short_simulated()

    monkeypatch.setattr("simulator.driver.run.simulate", take)
    return asked


def process(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "simulator.cli", *map(str, arguments)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )


# A process of its own


def test_run_prints_one_json_document_and_nothing_else():
    done = process("run", "deepseek-v3-pretrain", *SHORT, "--schedule", "1f1b", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert list(document) == [
        "schema_version",
        "experiment",
        "metrics",
        "phases",
        "breakdown_s",
        "memory_bytes",
        "uncertainty",
        "intervals",
        "samples",
        "facts",
        "play",
        "provenance",
        "timing",
    ]
    assert document["experiment"]["batch"]["sequences"] == 4096
    assert document["experiment"]["plan"]["schedule"] == "1f1b"
    assert document["metrics"]["step_time_s"] > 0


def test_wrong_input_exits_2_with_one_line_on_stderr():
    done = process("run", "deepseek-v3-pretrain", "--set", "plan.ep=96")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "moesim: plan.ep: must divide the 256 routed experts of deepseek-v3, got 96\n"
    )


def test_a_file_where_the_folder_should_be_exits_2_before_the_run(tmp_path):
    taken = tmp_path / "out"
    taken.write_text("not a folder", encoding="utf-8")
    done = process("run", "deepseek-v3-pretrain", *SHORT, "--schedule", "1f1b", "--out", taken)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"moesim: --out {taken}: ")
    assert done.stderr.count("\n") == 1


# Exit codes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "deepseek-v3-pretrian"], "did you mean 'deepseek-v3-pretrain'?"),
        (["run", "deepseek-v3-pretrain", "--set", "plan.epp=4"], "did you mean 'pp'?"),
        (["run", "deepseek-v3-pretrain", "--set", "plan.ep"], "expected KEY=VALUE"),
        (["run", "deepseek-v3-pretrain", "--schedule", "zb2p"], "did you mean 'zb1p'?"),
        (
            ["run", "deepseek-v3-pretrain", "--trace", "atoms"],
            "trace: detail must be parts, segments, kernels, got 'atoms'",
        ),
        (["run", "deepseek-v3-pretrain", "--ranks", "all"], "ranks.play: input should be"),
        (["run"], "Missing argument"),
        (["run", "deepseek-v3-pretrain", "--nonsense"], "--nonsense"),
        (["fly"], "fly"),
        (["show", "chip", "h8000"], "did you mean 'h800'?"),
        (["show", "chp", "h800"], "did you mean 'chip'?"),
        (["run", "deepseek-v3-pretrain", "--trace", "chunks"], "chunks are called parts"),
        (["run", "deepseek-v3-pretrain", "--trace", "kernels"], "need --out"),
        (
            ["run", "deepseek-v3-pretrain", "--schedule", "all", "--out", "x"],
            "--out: goes with one schedule",
        ),
        (["run", "deepseek-v3-pretrain", "--out", "x", "--trace-rank", "16"], "from 0 to 15"),
        (["run", "deepseek-v3-pretrain", "--set", "communication.sms=0"], "communication.sms"),
        (["run", "deepseek-v3-pretrain", "--set", "batch.sequences=12800000"], "10,000 micro"),
        (["run", "deepseek-v3-pretrain", "--set", "batch.sequences=true"], "whole number"),
        (["run", "deepseek-v3-pretrain", "--set", "plan=16"], "is a table with keys pp, ep"),
        (
            ["run", "deepseek-v3-pretrain", "--set", "cluster.node.nic.link_bytes_per_s=400"],
            "such as '400 Gb/s'",
        ),
        (["run", "deepseek-v3-pretrain", "--set", "uncertainty.draws=-1"], "equal to 0, got -1"),
        (
            [
                "run",
                "deepseek-v3-pretrain",
                "--set",
                "uncertainty.draws=8",
                "--set",
                "profile=none",
            ],
            "uncertainty.draws: no input carries a distribution",
        ),
        (
            ["run", "deepseek-v3-pretrain", "--set", f"{HEAD}={{value=0.7, p10=0.6, p90=0.8}}"],
            f"{HEAD}: a table with 'value' takes one of 'source' and 'assumed'",
        ),
        (
            [
                "run",
                "deepseek-v3-pretrain",
                "--set",
                f"{HEAD}={{value=0.7, p10=0.8, p90=0.9, source='x'}}",
            ],
            "must have p10 <= value <= p90, got 0.8, 0.7, 0.9",
        ),
        (["run", "."], "expected the name of a preset or a TOML file"),
        (["list", "gadgets"], "unknown kind 'gadgets'"),
        (["reproduce", "isca26"], "no published figure is or begins with 'isca26'"),
        (["compare", "nowhere.json", "nowhere.json"], "nowhere.json"),
        (["plot", "nowhere"], "nowhere"),
    ],
)
def test_bad_arguments_exit_2_with_one_line(main, arguments, message):
    code, out, err = main(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("moesim: ")
    assert message in err
    assert err.count("\n") == 1


def test_our_own_errors_exit_1(main, monkeypatch):
    def stuck(experiment, *_, **__):
        raise DeadlockError("'a' on s waits for 'b' on t")

    monkeypatch.setattr("simulator.driver.run.simulate", stuck)
    assert main("run", "deepseek-v3-pretrain") == (1, "", "moesim: 'a' on s waits for 'b' on t\n")


def test_a_bug_keeps_its_traceback(monkeypatch):
    def broken(experiment, *_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr("simulator.driver.run.simulate", broken)
    monkeypatch.setattr(sys, "argv", ["moesim", "run", "deepseek-v3-pretrain"])
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_without_a_gpu_measuring_is_one_line_and_exit_3(tmp_path):
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    file = tmp_path / "plan.json"
    point = {"kernel": "probe_copy", "shape": {"bytes": 1024}}
    file.write_text(json.dumps({"points": [point]}), encoding="utf-8")
    for arguments in (
        ("calibrate", "measure", file, "--out", tmp_path / "rows.csv"),
        ("kernels", "bench", "fp8_gemm"),
    ):
        done = process(*arguments)
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr.count("\n") == 1


def test_done_exits_0(main):
    code, out, err = main("list")
    assert (code, err) == (0, "")
    assert out


# run


@pytest.mark.parametrize("ranks", ["folded", "explicit"])
def test_overrides_reach_the_experiment(invoke, played, ranks):
    changes = ("--set", "cluster.node.chip=h20", "--set", "plan.zero=0", "--ranks", ranks)
    invoke("run", "deepseek-v3-pretrain", *changes, "--schedule", "zb1p")
    (experiment,) = played
    assert experiment.ranks.play == ranks
    assert experiment.plan.schedule == "zb1p"
    assert experiment.cluster.node.chip.name == "h20"
    assert experiment.plan.zero == 0
    assert experiment.sources["plan.zero"].text.startswith("--set")


def test_a_summary_names_step_phases_memory_and_basis(invoke, played, short_run):
    text = invoke("run", "deepseek-v3-pretrain").output
    metrics = short_run().metrics
    assert f"{metrics.step_time_s:.3f} s" in text
    for words in ("bubble", "optimizer", "overlapped", "activations", "profile h800-deepseek"):
        assert words in text
    assert f"{short_run().memory_bytes['total'] / 1e9:.1f} of 85.5 GB" in text


def test_out_writes_result_trace_and_figures(
    invoke, played, short_run, drawn, tmp_path, short_played
):
    folder = tmp_path / "a" / "b"
    done = invoke("run", "deepseek-v3-pretrain", "--out", folder, "--trace-rank", 2)
    assert done.stderr.splitlines() == [
        f"wrote {folder / name}" for name in ("result.json", "trace.json", "pipeline.png")
    ]
    assert "wrote" not in done.stdout
    assert drawn == [(short_played(), folder)]
    assert Result.load(folder).metrics == short_run().metrics
    events = json.loads((folder / "trace.json").read_text(encoding="utf-8"))["traceEvents"]
    assert {event["pid"] for event in events} == {2}


def test_json_with_out_still_prints_one_document(
    invoke, played, short_run, drawn, tmp_path, short_played
):
    done = invoke("run", "deepseek-v3-pretrain", "--out", tmp_path, "--json")
    assert json.loads(done.stdout) == json.loads(short_run().to_json())
    assert drawn == [(short_played(), tmp_path)]


def test_all_schedules_run_and_what_cannot_is_a_row_with_its_reason(invoke, monkeypatch, short_run):
    asked = []

    def take(experiment, **_):
        asked.append(experiment.plan.schedule)
        if experiment.plan.schedule == "zb1p":
            raise InfeasibleError("memory of pipeline rank 0: too much")
        return short_run()

    monkeypatch.setattr("simulator.driver.run.run", take)
    command = ["run", "deepseek-v3-pretrain", "--schedule", "all"]
    document = json.loads(invoke(*command, "--json").stdout)
    assert sorted(asked) == sorted(document) == sorted(SCHEDULES)
    assert document["zb1p"] == {"infeasible": "memory of pipeline rank 0: too much"}
    assert document["1f1b"] == json.loads(short_run().to_json())
    text = invoke(*command).stdout
    assert "zb1p: memory of pipeline rank 0: too much" in text
    assert f"{short_run().metrics.step_time_s:.4g} s" in text


def test_schedules_are_listed_fastest_first_with_what_each_idles_and_holds(invoke):
    """Those that do not fit or cannot run have a line of their own, once a reason."""
    few = ("--set", "batch.sequences=4096", "--set", "plan.vpp=2", "--set", "ranks.draws=1")
    roomy = ("--set", "cluster.node.chip.hbm_capacity_bytes='63 GB'")
    command = ["run", "deepseek-v3-pretrain", *few, *roomy, "--schedule", "all"]
    document = json.loads(invoke(*command, "--json").stdout)
    ran = {name: each for name, each in document.items() if "infeasible" not in each}
    assert set(ran) == {"zbv", "vhalf"}
    text = invoke(*command).stdout
    rows = [line.split() for line in text.splitlines()]
    order = [row[0] for row in rows if row and row[0] in ran]
    assert order == sorted(ran, key=lambda name: ran[name]["metrics"]["step_time_s"])
    for name, each in ran.items():
        (row,) = (row for row in rows if row and row[0] == name)
        gigabytes = max(each["memory_bytes"].values()) / 1e9
        shown = [f"{each['metrics']['step_time_s']:.4g}", f"{each['breakdown_s']['bubble']:.4g}"]
        shown += [f"{100 * each['metrics'][f'mfu_{way}']:.4g}" for way in ("causal", "noncausal")]
        assert row[1::2] == [*shown, f"{gigabytes:.4g}"]
    assert "1f1b: plan.vpp: must be 1 for 1f1b, interleaved takes more, got 2" in text
    assert "interleaved: memory of pipeline rank" in text
    assert "vhalf, zbv: plan.layout: the preset's gives way to an even split" in text


# Draws


@pytest.fixture
def of_result(monkeypatch):
    """Let `run` take a result; its step is not looked at."""

    def take(result):
        simulated = Simulated(result, None)
        monkeypatch.setattr("simulator.driver.run.simulate", lambda *_, **__: simulated)

    return take


def test_a_drawn_step_is_summed_up_with_its_spread_and_what_makes_it(invoke, of_result, drawn_run):
    of_result(drawn_run())
    text = invoke("run", "deepseek-v3-pretrain").stdout
    result = drawn_run()
    step = result.intervals["step_time_s"]
    assert "how sure it is (24 draws from seed 0)" in text
    assert f"{step.p10:.4g}-{step.p90:.4g} s" in text
    assert re.search(r"dispatch_nic_bytes_per_s +44 GB/s +38 GB/s to 47 GB/s +\d+%", text)
    assert re.search(r"chance and interactions +\d+%", text)
    bubble = result.intervals["breakdown_s.bubble"]
    row = next(line for line in text.splitlines() if line.startswith("bubble"))
    assert f"{bubble.p10:.4g}-{bubble.p90:.4g} s" in row


def test_too_few_draws_are_told_and_no_shares_printed(invoke, of_result, drawn_run):
    few = drawn_run(("uncertainty.draws", 12))
    of_result(few)
    text = invoke("run", "deepseek-v3-pretrain").stdout
    assert "2 uncertain inputs; it takes 16 draws to tell which of them" in text
    assert "chance and interactions" not in text


def test_small_shares_are_summed_up_in_one_line(invoke, of_result, drawn_run):
    """Ten inputs of which eight are shown: 3 % and 2 % are left."""
    result = drawn_run()
    percent = [30, 20, 10, 9, 8, 7, 6, 4, 3, 2]
    shares = {f"input {place}": part / 100 for place, part in enumerate(percent)}
    link = result.uncertainty.inputs[0]
    inputs = tuple(link.model_copy(update={"path": path}) for path in shares)
    step = result.intervals["step_time_s"].model_copy(
        update={"variance_shares": shares | {"chance and interactions": 0.01}}
    )
    many = result.model_copy(
        update={
            "uncertainty": result.uncertainty.model_copy(update={"inputs": inputs}),
            "intervals": result.intervals | {"step_time_s": step},
        }
    )
    of_result(many)
    text = invoke("run", "deepseek-v3-pretrain").stdout
    assert re.search(r"input 7 .* 4%\n2 more inputs +5%\nchance and interactions +1%", text)


def test_without_draws_nothing_is_said_of_them(invoke, played):
    text = invoke("run", "deepseek-v3-pretrain").stdout
    assert "P10" not in text
    assert "uncertain" not in text


def test_progress_is_shown_on_a_terminal_only_and_never_on_stdout(capsys, monkeypatch):
    draws = range(21)
    assert track_draws(draws) is draws
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes that for a terminal
    assert track_draws(range(20)) == range(20)
    assert list(track_draws(draws)) == list(draws)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "draws" in captured.err
