"""Results: JSON there and back, the same bytes twice, and what they say about themselves."""

import json

import pytest

from hwmodels.errors import SpecError
from simulator import Experiment, run
from simulator.tell.result import SCHEMA, Result

FEW_CHUNKS = ("plan.schedule", "1f1b")  # forwards and backwards only: quick to play


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
    one, other = short_run(FEW_CHUNKS), short_run(FEW_CHUNKS, ("ranks.seed", 1))
    assert one.metrics.step_time_s != other.metrics.step_time_s
    assert one.metrics.memory_bytes == other.metrics.memory_bytes


def test_a_balanced_load_does_not_depend_on_the_seed(short_run):
    balanced = ("ranks.expert_load.kind", "balanced")
    seeds = [short_run(FEW_CHUNKS, balanced, ("ranks.seed", seed)).metrics for seed in (0, 1)]
    assert seeds[0] == seeds[1]


def test_a_result_is_read_from_its_file_or_its_folder(short_run, tmp_path):
    file = tmp_path / "result.json"
    file.write_text(short_run().to_json(), encoding="utf-8")
    for path in (file, tmp_path):
        assert Result.load(path).metrics == short_run().metrics


def test_a_result_read_from_a_file_plays_its_run_again(short_run):
    result = short_run(FEW_CHUNKS)
    again = Result.from_json(result.to_json())
    assert again.training_run().times.step_s == result.metrics.step_time_s


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
    assert told.schema_version == 1
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
    assert set(told.time_share_by_basis) == {
        "profile h800-deepseek, transferred to h100 by datasheet"
    }


def test_every_source_of_the_experiment_is_kept(short_run):
    result = short_run()
    sources = result.provenance.sources
    assert "NVIDIA" in sources["cluster.node.chip.hbm_bytes_per_s"].text
    assert sources["plan.layout"].assumed
    assert sources["batch.sequences"].text.startswith("override (was: ")
    again = Result.from_json(result.to_json())
    assert again.provenance.sources == sources


def test_a_result_says_what_was_folded_and_how_much_was_played(short_run):
    """128 pipelines as one; ranks 0 and 15 hold stages 0 and 15, all others alike, so there are the
    14 chunks that `metrics.chunks` lists, each on 64 ranks.
    """
    result = short_run()
    training = result.training_run()
    assert (result.play.mode, result.play.engine, result.play.ranks) == (
        "folded",
        "array",
        2048,
    )
    assert result.provenance.folding == (
        f"128 pipelines played as one of 16 ranks; {len(result.metrics.chunks)} distinct chunks "
        "played on 64 ranks in lock-step, with 8 draws of the expert load each"
    )
    tasks = sum(
        len(chunk.timeline(draw).graph)
        for chunk in training.chunks.values()
        for draw in range(chunk.draws)
    )
    assert result.play.tasks == tasks + len(training.pipeline.graph)


def test_every_distinct_chunk_of_the_program_is_played_on_the_whole_expert_group(short_run):
    training = short_run().training_run()
    kinds = {(s.kind, s.forward, s.backward) for own in training.pipeline.program for s in own}
    stages_of = {0: 0, 15: 15} | dict.fromkeys(range(1, 15), 1)
    keys = {
        (kind, stages_of[f.stage] if f else -1, stages_of[b.stage] if b else -1)
        for kind, f, b in kinds
    }
    assert set(training.chunks) == keys
    unlike = {key for key in keys if training.blueprint.chunks[key].slots}
    assert {training.chunks[key].ranks for key in unlike} == {64}
    assert {training.chunks[key].draws for key in unlike} == {8}


def test_every_micro_batch_takes_a_draw_of_its_own_chunk(short_run):
    """As long as that draw, in the timeline; most draws of pairs are dealt to one."""
    training = short_run().training_run()
    blueprint, folded = training.blueprint, training.folded
    steps = [step for own in training.pipeline.program for step in own]
    lasted_s = (training.timeline.end_s - training.timeline.start_s)[: len(steps)]
    assert len(folded.draw_of_step) == len(blueprint.key_of_step) == len(steps)
    dealt = set()
    for number, step in enumerate(steps):
        key = blueprint.keys[blueprint.key_of_step[number]]
        draw = folded.draw_of_step[number]
        assert key[0] == step.kind
        duration_s = training.chunks[key].duration_s[draw]
        assert folded.chunk_s[number] == duration_s
        assert lasted_s[number] == pytest.approx(duration_s, rel=1e-9)
        if step.kind == "FB":
            dealt.add((key, int(draw)))
    pairs = sum(chunk.draws for key, chunk in training.chunks.items() if key[0] == "FB")
    assert len(dealt) > pairs / 2


def test_a_balanced_load_needs_one_draw_of_one_rank(short_run):
    """Which stands for the group."""
    training = short_run(FEW_CHUNKS, ("ranks.expert_load.kind", "balanced")).training_run()
    assert {chunk.draws for chunk in training.chunks.values()} == {1}
    assert {chunk.ranks for chunk in training.chunks.values()} == {1}


def test_the_resolved_experiment_runs_again_to_the_same_metrics(short_run):
    values = short_run().experiment
    assert values["cluster"]["node"]["chip"]["name"] == "h800"
    assert Experiment.from_values(values).batch.sequences == 4096


def test_the_published_schema_is_that_of_the_models():
    """A change of `Result` changes the file in the same commit."""
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == Result.model_json_schema()
