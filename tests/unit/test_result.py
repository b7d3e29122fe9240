"""Results: JSON there and back, what is none, and what they say about themselves."""

import json
from io import StringIO

import pytest
from rich.console import Console

from hwmodels.errors import SpecError
from simulator import Experiment, run
from simulator.driver.step import play
from simulator.tell.facts.parts import Parts
from simulator.tell.result import SCHEMA, Result
from simulator.tell.summary import show_result

FEW_PARTS = ("plan.schedule", "1f1b")  # forwards and backwards only: quick to play


def test_a_result_survives_a_json_round_trip_to_the_last_bit(short_run):
    result = short_run()
    again = Result.from_json(result.to_json())
    assert again.model_dump() == result.model_dump()
    assert again.to_json() == result.to_json()


def test_two_runs_with_one_seed_have_the_same_metrics_to_the_last_bit(short_run):
    experiment = Experiment.load("deepseek-v3-pretrain")
    again = run(experiment.with_overrides({"batch.sequences": 4096}))
    assert again.metrics.model_dump_json() == short_run().metrics.model_dump_json()


def test_another_seed_draws_other_loads(short_run):
    one, other = short_run(FEW_PARTS), short_run(FEW_PARTS, ("ranks.seed", 1))
    assert one.metrics.step_time_s != other.metrics.step_time_s
    assert one.memory_bytes == other.memory_bytes


def test_a_balanced_load_does_not_depend_on_the_seed(short_run):
    balanced = ("ranks.expert_load.kind", "balanced")
    seeds = [short_run(FEW_PARTS, balanced, ("ranks.seed", seed)).metrics for seed in (0, 1)]
    assert seeds[0] == seeds[1]


def test_a_result_is_read_from_its_file_or_its_folder(short_run, tmp_path):
    file = tmp_path / "result.json"
    file.write_text(short_run().to_json(), encoding="utf-8")
    for path in (file, tmp_path):
        assert Result.load(path).metrics == short_run().metrics


def test_a_result_read_from_a_file_plays_its_run_again(short_run):
    result = short_run(FEW_PARTS)
    again = Result.from_json(result.to_json())
    assert play(again.resolved()).times.step_s == result.metrics.step_time_s


def test_an_override_of_the_models_routing_is_named(short_run):
    """Beside what it comes to; without one the rule is the model's, and there may be none."""
    own = short_run(FEW_PARTS)
    limited = short_run(FEW_PARTS, ("communication.routed_nodes_max", 2))
    rule = "the model's own rule, 8 of 256 experts in its best 4 of 8 groups"
    assert own.provenance.expert_routing.startswith(f"{rule}: 3.95 of 8 nodes and ")
    assert limited.provenance.expert_routing.startswith(
        f"communication.routed_nodes_max = 2 instead of {rule}: 2.00 of 8 nodes and "
    )
    for result in (own, limited):
        console = Console(file=StringIO(), width=300)
        show_result(console, result)
        assert f"routing: {result.provenance.expert_routing}\n" in console.file.getvalue()


def test_what_is_no_result_is_refused_in_our_own_words(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    for name, got in (
        ("missing", "nothing there"),
        ("missing/deep.json", "nothing there"),
        ("empty", "nothing there"),
        ("bytes", "bytes that are not UTF-8"),
    ):
        with pytest.raises(SpecError) as refused:
            Result.load(tmp_path / name)
        message = str(refused.value)
        assert message.endswith(
            f"expected a result.json, or a folder that `moesim run --out` wrote, got {got}"
        )
        assert "Errno" not in message


# What is no result


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "result"),
        ("{}", "missing"),
        ('{"metrics": 3}', "missing"),
        ('{"surprise": 1}', "missing|unknown key"),
    ],
)
def test_a_text_that_is_no_result_is_refused_in_one_line(text, message):
    with pytest.raises(SpecError, match=message) as error:
        Result.from_json(text)
    assert "\n" not in str(error.value)


def test_a_result_of_another_schema_is_refused_with_what_to_do(short_run):
    """As schema 1 said it, under `provenance`, and as a later one will."""
    values = json.loads(short_run().to_json())
    later = json.dumps(values | {"schema_version": 3})
    del values["schema_version"]
    values["provenance"]["schema_version"] = 1
    for text, version in ((json.dumps(values), 1), (later, 3)):
        with pytest.raises(SpecError) as refused:
            Result.from_json(text, "result.json")
        message = str(refused.value)
        assert message.startswith(f"result.json: schema_version: must be 2, got {version}; ")
        assert (
            "simulate its experiment again with `moesim run`, or read it with the moesim" in message
        )
        assert f"('{short_run().provenance.version}', of schema {version})" in message
        assert "\n" not in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("schema_version"), "schema_version: missing"),
        (lambda d: d["phases"].pop("bubble"), "phases: must name those of breakdown_s"),
        (lambda d: d["memory_bytes"].pop("total"), "memory_bytes: must have a total"),
        (lambda d: d["facts"].append(d["facts"][0]), "facts: must be one of a kind, got "),
        (lambda d: d["facts"][0].update(kind="weather"), "kind 'weather': unknown; known: "),
        (lambda d: d["metrics"].pop("kind"), "kind '': unknown; known: training"),
    ],
)
def test_a_result_that_does_not_fit_together_is_refused(short_run, change, message):
    document = json.loads(short_run().to_json())
    change(document)
    with pytest.raises(SpecError, match=message) as error:
        Result.from_json(json.dumps(document))
    assert "\n" not in str(error.value)


def test_a_result_without_pipeline_ranks_has_no_phase_of_one(short_run):
    untold = short_run().model_copy(update={"facts": ()})
    assert untold.phase_s("bubble") == short_run().breakdown_s["bubble"]
    with pytest.raises(SpecError, match="facts: must have pipeline_ranks"):
        untold.phase_s("bubble", 0)


def test_an_unknown_key_in_a_result_is_refused(short_run):
    values = json.loads(short_run().to_json()) | {"surprise": 1}
    with pytest.raises(SpecError, match="unknown key"):
        Result.from_json(json.dumps(values))


@pytest.mark.parametrize(
    "make", [lambda path: None, lambda path: path.write_bytes(b"\xff\xfe\x00")]
)
def test_a_file_that_is_missing_or_no_text_is_refused(tmp_path, make):
    path = tmp_path / "result.json"
    make(path)
    with pytest.raises(SpecError, match=r"result\.json") as error:
        Result.load(path)
    assert "\n" not in str(error.value)


# What a result says about itself


def test_a_result_names_what_it_was_priced_from(short_run):
    told = short_run().provenance
    assert told.profile == "h800-deepseek"
    assert len(told.profile_sha256) == 64
    assert told.seed == 0
    assert short_run().schema_version == 2
    assert sum(told.time_share_by_basis.values()) == pytest.approx(1, rel=1e-12)
    assert set(told.time_share_by_basis) == {"profile h800-deepseek"}


def test_without_a_profile_a_result_says_roofline():
    experiment = Experiment.from_values(
        {
            "model": "deepseek-v3",
            "cluster": "h800-2048-mpft",
            "plan": {"pp": 16, "ep": 64, "schedule": "dualpipe"},
            "batch": {"sequences": 4096, "sequence_length": 4096},
        }
    )
    told = run(experiment).provenance
    assert (told.profile, told.profile_sha256) == (None, None)
    assert told.time_share_by_basis == {"roofline of h800": 1}


def test_on_another_chip_a_result_says_that_prices_were_transferred(short_run):
    told = short_run(("cluster.node.chip", "h100")).provenance
    assert set(told.time_share_by_basis) == {"profile h800-deepseek, transferred from h800 to h100"}


def test_every_source_of_the_experiment_is_kept(short_run):
    result = short_run()
    sources = result.provenance.sources
    assert "NVIDIA" in sources["cluster.node.chip.hbm_bytes_per_s"].text
    assert sources["plan.layout"].assumed
    assert sources["batch.sequences"].text.startswith("override (was: ")
    again = Result.from_json(result.to_json())
    assert again.provenance.sources == sources


def test_a_result_says_what_was_folded_and_how_much_was_played(short_simulated):
    """128 pipelines as one; ranks 0 and 15 hold stages 0 and 15, all others alike, so there are the
    14 parts that the facts list, each on 64 ranks.
    """
    result, training = short_simulated()
    assert (result.play.mode, result.play.engine, result.play.ranks) == (
        "folded",
        "array",
        2048,
    )
    assert result.provenance.folding == (
        f"128 pipelines played as one of 16 ranks; {len(result.fact(Parts).parts)} distinct parts "
        "played on 64 ranks in lock-step, with 8 draws of the expert load each"
    )
    tasks = sum(
        len(part.graph.segments) * part.ranks * part.draws for part in training.parts.values()
    )
    assert result.play.tasks == tasks + len(training.pipeline.graph)


def test_every_distinct_part_of_the_program_is_played_on_the_whole_expert_group(short_played):
    training = short_played()
    kinds = {(s.kind, s.forward, s.backward) for own in training.pipeline.program for s in own}
    stages_of = {0: 0, 15: 15} | dict.fromkeys(range(1, 15), 1)
    keys = {
        (kind, stages_of[f.stage] if f else -1, stages_of[b.stage] if b else -1)
        for kind, f, b in kinds
    }
    assert set(training.parts) == keys
    unlike = {key for key in keys if training.lowered.parts[key].loads}
    assert {training.parts[key].ranks for key in unlike} == {64}
    assert {training.parts[key].draws for key in unlike} == {8}


def test_every_micro_batch_takes_a_draw_of_its_own_part(short_played):
    """As long as that draw, in the timeline, and what it first waits for ranks behind; most draws
    of pairs are dealt to one.
    """
    training = short_played()
    lowered, folded = training.lowered, training.folded
    steps = [step for own in training.pipeline.program for step in own]
    lasted_s = (training.timeline().end_s - training.timeline().start_s)[: len(steps)]
    assert len(folded.draw.of_step) == len(lowered.part_of_step) == len(steps)
    dealt = set()
    for number, step in enumerate(steps):
        key = lowered.keys[lowered.part_of_step[number]]
        draw = folded.draw.of_step[number]
        assert key[0] == step.kind
        duration_s = training.parts[key].duration_s[draw]
        assert folded.steps_s[number] == duration_s
        behind_s = folded.lag_s[number - 1] if number else 0.0
        assert duration_s * (1 - 1e-9) <= lasted_s[number] <= duration_s + behind_s + 1e-9
        if step.kind == "FB":
            dealt.add((key, int(draw)))
    pairs = sum(part.draws for key, part in training.parts.items() if key[0] == "FB")
    assert len(dealt) > pairs / 2


def test_a_balanced_load_needs_one_draw_of_one_rank(short_played):
    """Which stands for the group."""
    training = short_played(FEW_PARTS, ("ranks.expert_load.kind", "balanced"))
    assert {part.draws for part in training.parts.values()} == {1}
    assert {part.ranks for part in training.parts.values()} == {1}


def test_the_resolved_experiment_runs_again_to_the_same_metrics(short_run):
    values = short_run().experiment
    assert values["cluster"]["node"]["chip"]["name"] == "h800"
    assert Experiment.from_values(values).batch.sequences == 4096


def test_the_published_schema_is_that_of_the_models():
    """A change of `Result` changes the file in the same commit."""
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == Result.model_json_schema()
