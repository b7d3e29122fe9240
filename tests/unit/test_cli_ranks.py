"""The command line on single ranks: what it prints of them, and which it refuses."""

import json
import re
import sys

import pytest
from click.testing import CliRunner

from simulator import cli

SMALL = {
    "plan.pp": 4,
    "plan.ep": 8,
    "plan.layout": '"3d+13m, 15m, 15m, 15m+mtp+2heads"',
    "cluster.nodes": 8,
    "cluster.node.chip.hbm_capacity_bytes": "2 TB",
    "batch.sequences": 160,
    "ranks.draws": 1,
}
"""64 GPUs: 16 pipelines of 4 ranks, two expert groups of 8 on each."""


def command(*arguments, **changes):
    """Words of a run of the small step."""
    pairs = [word for path, value in changes.items() for word in ("--set", f"{path}={value}")]
    return ["run", "deepseek-v3-pretrain", *pairs, *arguments]


@pytest.fixture
def invoke():
    """Run the small step in this process; returns what is printed."""

    def call(*arguments, **changes):
        words = command(*arguments, **SMALL | changes)
        done = CliRunner().invoke(cli.moesim, words, catch_exceptions=False)
        assert (done.exit_code, done.stderr) == (0, "")
        return done.stdout

    return call


@pytest.fixture
def main(monkeypatch, capsys):
    """Run the whole command in this process; returns exit code, stdout, stderr."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["moesim", *words])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        return stopped.value.code, captured.out, captured.err

    return call


STRAGGLER = {"ranks.stragglers": "[{gpu=43, slowdown=2}]", "ranks.jitter": 0.03}


def test_explicit_ranks_are_summed_up_with_who_was_waited_for(invoke):
    """Least, mean and most of what the document says of all ranks."""
    text = invoke(**STRAGGLER)
    document = json.loads(invoke("--json", **STRAGGLER))
    facts, play = {each["kind"]: each for each in document["facts"]}, document["play"]
    ranks, path = facts["ranks"], facts["critical_path"]["by_family_s"]
    assert play["mode"] == "explicit"
    lines = text.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("64 ranks"))
    for row, (shown, name) in enumerate(
        {
            "compute": "compute_s",
            "communication": "communication_s",
            "waiting in exchanges": "wait_s",
            "bubble": "bubble_s",
            "waiting caused to others": "caused_s",
        }.items()
    ):
        values = ranks[name]
        assert len(values) == 64
        numbers = (min(values), sum(values) / 64, max(values))
        assert re.split(r"\s{2,}", lines[start + 2 + row].strip()) == [
            shown,
            *(f"{seconds:.3f} s" for seconds in numbers),
        ]
    worst = ranks["waited_for"][0]
    assert worst["gpu"] == 43
    assert (
        "GPU 43 (pipeline rank 2 of pipeline 11) cost the others of its group "
        f"{worst['caused_s']:.1f} s, all together"
    ) in lines
    assert sum("cost the others of its group" in line for line in lines) == 3
    step_s = document["metrics"]["step_time_s"]
    name, seconds = next(iter(path.items()))
    assert f"critical path: {name.replace('_', ' ')} {seconds / step_s:.0%}, " in text
    assert sum(path.values()) == pytest.approx(step_s, rel=1e-9)
    alike_s = ranks["folded_step_s"]
    assert (
        f"were ranks alike, the step would take {alike_s:.3f} s ({alike_s / step_s - 1:+.1%})"
    ) in lines
    assert "every rank played: 16 pipelines of 4" in text


def test_ranks_that_are_alike_are_explicit_where_asked_for_and_nobody_is_waited_for(invoke):
    balanced = {"ranks.expert_load.kind": "balanced"}
    text = invoke("--ranks", "explicit", **balanced)
    assert "64 ranks" in text
    assert "cost the others" not in text
    assert re.search(r"were ranks alike, the step would take \d+\.\d+ s \([+-]0\.0%\)", text)
    assert "64 ranks" not in invoke(**balanced)


def test_a_check_of_folding_is_one_more_line(invoke):
    """The step itself stays folded, and as long as without the check."""
    plain, checked = invoke(), invoke("--check-folding")
    line = r"^folding: ([+-]\d\.\d\d)% of the step with every rank played$"
    told = re.search(line, checked, re.MULTILINE)
    assert told
    assert 0 < abs(float(told[1])) < 1
    kept = [line for line in checked.splitlines() if not line.startswith("folding: ")]

    def timeless(lines):
        return [re.sub(r"in \d+\.\d s", "in some time", line) for line in lines]

    assert timeless(kept) == timeless(plain.splitlines())
    explicit = json.loads(invoke("--ranks", "explicit", "--json"))["metrics"]["step_time_s"]
    folded = json.loads(invoke("--json"))["metrics"]["step_time_s"]
    assert told[1] == f"{100 * (folded / explicit - 1):+.2f}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            command(**{"ranks.stragglers": "[{gpu=2048, slowdown=2}]"}),
            "ranks.stragglers: gpu must be from 0 to 2047, got 2048",
        ),
        (
            command(**{"ranks.stragglers": "[{gpu=-1, slowdown=2}]"}),
            "ranks.stragglers.0.gpu",
        ),
        (
            command(**{"ranks.stragglers": "[{gpu=1, slowdown=0.5}]"}),
            "ranks.stragglers.0.slowdown",
        ),
        (
            command(**{"ranks.stragglers": "[{gpu=1, part='fan', slowdown=2}]"}),
            "ranks.stragglers.0.part",
        ),
        (
            command("--ranks", "folded", **{"ranks.jitter": 0.03}),
            "ranks.play: folded ranks are alike, but ranks.jitter sets them apart",
        ),
        (
            command(
                "--ranks", "folded", **{"ranks.stragglers": "[{gpu=0, part='nic', slowdown=2}]"}
            ),
            "ranks.play: folded ranks are alike, but ranks.stragglers sets them apart",
        ),
        (command(**{"ranks.jitter": -0.1}), "ranks.jitter: input should be"),
        (
            command(**{"ranks.expert_load": "{kind='matrix', loads=[[1, 2, 3]]}"}),
            "ranks.expert_load.loads: rows must have plan.ep = 64 loads, got 3",
        ),
        (
            command(**{"ranks.expert_load": f"{{kind='matrix', loads={[[1] * 64] * 5}}}"}),
            "must have one row, or one for each of the 59 layers with experts, got 5",
        ),
        (
            command(**{"ranks.expert_load": "{kind='matrix', loads=[[1, 2], [1]]}"}),
            "loads: rows must be as long as the first",
        ),
        (command("--ranks", "some"), "ranks.play: input should be"),
    ],
    ids=[
        "beyond the last GPU",
        "a negative GPU",
        "a faster straggler",
        "no such part",
        "jitter folded",
        "a straggler folded",
        "negative jitter",
        "rows of another width",
        "rows of some layers",
        "rows of two lengths",
        "no such play",
    ],
)
def test_ranks_that_cannot_be_are_refused_in_one_line(main, words, message):
    code, out, err = main(*words)
    assert (code, out) == (2, "")
    assert err.startswith("moesim: ")
    assert message in err
    assert err.count("\n") == 1
