"""No input ends in a traceback: documents, overrides, options and files of any content either work
or are refused in one line below 300 characters.
"""

import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hwmodels.cluster import CLUSTERS
from hwmodels.errors import MoesimError, SpecError
from hwmodels.fields import bounds_of
from hwmodels.library import LIBRARIES
from simulator import Experiment, cli, run
from simulator.cli.overrides import parse_override
from simulator.driver.run import simulate
from simulator.experiment import EXPERIMENTS
from workloads.model import MODELS

LONGEST = 300
SMALL = Experiment.load("deepseek-v3-pretrain").with_overrides(
    {
        "model.layers": 4,
        "model.moe.routed_experts": 64,
        "plan": {"pp": 1, "ep": 8, "schedule": "1f1b"},
        "cluster.nodes": 2,
        "batch.sequences": 32,
    }
)


def refused(call: Any, *arguments: Any) -> str:
    """Return the line with which a call refuses its arguments, "" if it does not."""
    try:
        call(*arguments)
    except MoesimError as error:
        refusal = error
    else:
        return ""
    line = f"moesim: {refusal}"
    assert refusal.exit_code == 2
    assert line.isprintable()
    assert len(line) < LONGEST
    return line


def paths_of(values: Any, path: str = "") -> list[str]:
    """Return the paths of all tables and values."""
    below = (
        [p for key, value in values.items() for p in paths_of(value, f"{path}.{key}")]
        if (isinstance(values, dict))
        else []
    )
    return [path.removeprefix("."), *below] if path else below


def numbered(path: str) -> bool:
    try:
        bounds_of(SMALL, path)
    except SpecError:
        return False
    return True


DUMP = SMALL.model_dump(mode="json")
PATHS = paths_of(DUMP)
NUMBERS = [path for path in PATHS if numbered(path) and path != "uncertainty.draws"]


@st.composite
def nested(draw: st.DrawFn) -> Any:
    value: Any = draw(st.sampled_from([1, "x", None]))
    kinds = draw(st.lists(st.sampled_from(["a", "value", "base", "kind", ""]), min_size=1))
    for _ in range(draw(st.sampled_from([1, 5, 40, 500]))):
        for kind in kinds:
            value = {kind: value} if kind else [value]
    return value


numbers = st.one_of(
    st.integers(),
    st.floats(),
    st.integers(0, 400).map(lambda power: 10**power),
    st.sampled_from([1, -1]).map(lambda sign: sign * 10**5000),  # which Python does not print
    st.sampled_from([2**63, 2**64, 5e-324, 1e308, math.nan, -math.inf, True]),
)
texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["a\nb", "\0", "\udcff", "x" * 10**5, "9" * 5000, "none", "1e999 GB", "-1 s"]),
    st.sampled_from(["400 Gb/s", "3 TB/s", "0 s", "h800", "deepseek-v3", "nic:0.0=1e-300", "4m"]),
)
ranges = st.fixed_dictionaries(
    {"value": numbers | texts, "assumed": texts}, optional={"p10": numbers, "p90": numbers}
)
values = st.one_of(
    numbers, texts, ranges, nested(), st.none(), st.lists(numbers | texts | ranges, max_size=3)
)
paths = st.one_of(
    st.sampled_from(PATHS),
    st.sampled_from(PATHS).flatmap(lambda path: texts.map(lambda text: f"{path}.{text}")),
    st.sampled_from(["", ".", "." * 5000, "a\nb.c", "x" * 10**5, "cluster.\udcff"]),
)


@settings(max_examples=400)
@given(st.dictionaries(paths, values, min_size=1, max_size=3))
@example({"cluster.node.chip.sms": 10**5000})
@example({"name": 10**5000})
@example({"model.moe.routed_experts": 2**64})
@example({"ranks.expert_load.loads": [[5e-324, 0.0]] * 2})
def test_any_override_works_or_is_refused_in_one_line(changes: dict[str, Any]) -> None:
    refused(SMALL.with_overrides, changes)


@settings(max_examples=200)
@given(st.sampled_from(PATHS), values, st.booleans())
def test_any_document_works_or_is_refused_in_one_line(path: str, value: Any, new: bool) -> None:
    document = SMALL.model_dump(mode="json")
    *parents, last = path.split(".")
    table = document
    for key in parents:
        table = table[key]
    table[f"{last}\n" if new else last] = value
    refused(Experiment.from_values, document)


@settings(max_examples=60)
@given(st.data())
def test_any_numbers_within_their_bounds_run_or_are_refused(data: st.DataObject) -> None:
    """Ends of bounds and all between, by factors: nothing overflows, and no warning of numpy's."""
    changes = {}
    for path in data.draw(st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=3, unique=True)):
        bounds = bounds_of(SMALL, path)
        share, least = data.draw(st.floats(0, 1)), max(bounds.low, 1e-12)
        number = min(bounds.high, least * (bounds.high / least) ** share)
        number = data.draw(st.sampled_from([number, bounds.low, bounds.high]))
        changes[path] = round(number) if bounds.whole else number

    def play() -> None:
        result = run(SMALL.with_overrides(changes))
        assert 0 < result.metrics.step_time_s < math.inf

    refused(play)


@given(st.tuples(paths, texts | st.sampled_from(["[" * 2000, "-inf", "{"])).map("=".join) | texts)
def test_any_argument_of_set_is_read_or_refused_in_one_line(text: str) -> None:
    refused(parse_override, text)


@pytest.fixture
def exits(monkeypatch, capfd):
    """Run a command in this process; check what it ends with and return its exit code."""
    monkeypatch.setattr("simulator.driver.run.simulate", lambda *_, **__: simulate(SMALL))

    def call(*arguments: str) -> int:
        # The system takes no argument with a null byte.
        monkeypatch.setattr(sys, "argv", ["moesim", *(a.replace("\0", "") for a in arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        told = capfd.readouterr().err
        code = int(stopped.value.code or 0)
        assert code in (0, 2)
        lines = told.splitlines()
        assert all(len(line) < LONGEST and line.isprintable() for line in lines)
        warned = sum(line.startswith("moesim: warning: ") for line in lines)
        assert warned <= 1
        assert len(lines) == warned + (code == 2)
        return code

    return call


COMMANDS = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@COMMANDS
@given(st.lists(st.tuples(paths, texts | st.sampled_from(["1e308", "[[[[", "{a=1}"])), max_size=2))
def test_run_works_or_refuses_in_one_line(exits, changes: list[tuple[str, str]]) -> None:
    sets = [word for path, text in changes for word in ("--set", f"{path}={text}")]
    exits("run", "deepseek-v3-pretrain", "--json", *sets)


counts = st.sampled_from(["1", "8", "64", "0", "-1", "x", "1000000000", "9" * 400, "9" * 5000])
names = st.sampled_from(
    ["packed", "random", "spread", "static", "ecmp", "adaptive", "ring", "pairwise", "normal"]
)
options = st.one_of(
    st.tuples(st.sampled_from(["--groups", "--seed", "--tokens", "--sms"]), counts),
    st.tuples(
        st.sampled_from(["--placement", "--routing", "--algorithm", "--mode"]), names | texts
    ),
    st.tuples(st.just("--library"), st.sampled_from(LIBRARIES.names()) | texts),
    st.tuples(st.just("--model"), st.sampled_from(MODELS.names()) | texts),
    st.tuples(st.just("--fault"), st.sampled_from(["nic:0.0", "plane:1=1e-9", "leaf:9.9"]) | texts),
    st.tuples(st.just("--set"), st.tuples(paths, texts).map("=".join)),
)


@COMMANDS
@given(
    st.sampled_from(["all_to_all", "all_reduce", "broadcast", "dispatch", "combine"]) | texts,
    st.sampled_from(["1", "8", "16"]) | counts,
    st.sampled_from(["1 GiB", "1 B", "0", "1e400 B"]) | texts,
    st.sampled_from([*CLUSTERS.names()]) | texts,
    st.lists(options, max_size=3),
)
def test_collective_works_or_refuses_in_one_line(
    exits, kind: str, ranks: str, size: str, cluster: str, given_options: list[tuple[str, str]]
) -> None:
    sized = () if kind in ("dispatch", "combine") else ("--bytes", size)
    words = [word for option in given_options for word in option]
    exits("collective", "--ranks", ranks, "--cluster", cluster, *sized, *words, "--", kind)


@COMMANDS
@given(
    st.sampled_from(["chip", "node", "cluster", "model", "library", "experiment"]) | texts,
    st.sampled_from(["h800", "h800x8", "h800-2048-mpft", "deepseek-v3", "deepep-h800"]) | texts,
    st.lists(st.tuples(paths, texts).map("=".join), max_size=2),
    st.none() | texts,
)
def test_show_works_or_refuses_in_one_line(
    exits, kind: str, name: str, changes: list[str], prices: str | None
) -> None:
    words = [word for change in changes for word in ("--set", change)]
    words += [] if prices is None else ["--prices", prices]
    exits("show", *words, "--", kind, name)


PRESET = (EXPERIMENTS.folder / "deepseek-v3-pretrain.toml").read_bytes()
WRITTEN = ["9" * 5000, "[" * 900, "-inf", "1e400", '"\\u0001"']
broken = st.one_of(
    st.binary(max_size=50),
    st.tuples(st.integers(0, len(PRESET)), st.integers(0, 40), st.binary(max_size=6)).map(
        lambda cut: PRESET[: cut[0]] + cut[2] + PRESET[cut[0] + cut[1] :]
    ),
    st.tuples(st.sampled_from(PATHS), st.sampled_from(WRITTEN)).map(
        lambda pair: f'base = "deepseek-v3-pretrain"\n{pair[0]} = {pair[1]}'.encode()
    ),
    st.integers(1, 3000).map(lambda depth: (".".join("a" * depth) + " = 1").encode()),
)


@settings(max_examples=150)
@given(broken)
@example(b"base = 1")
@example(b'batch = { sequences = { value = 1, p10 = -inf, p90 = 2, assumed = "x" } }')
def test_any_file_works_or_is_refused_in_one_line(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "fuzzed.toml"
        file.write_bytes(content)
        refused(Experiment.load, file)


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b", "a\0b.toml", "\ud800", ".", "", "a\nb.toml"])
def test_any_name_is_refused_in_one_line(name: str) -> None:
    assert refused(Experiment.load, name)
