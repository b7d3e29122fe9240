"""The experiment document: presets, overrides and sources."""

import pytest

from hwmodels.chip import CHIPS
from hwmodels.cluster import CLUSTERS, ClusterSpec
from hwmodels.errors import InfeasibleError, SpecError, UnknownPresetError
from hwmodels.spec import validate
from simulator import Experiment
from simulator.cli.overrides import parse_override
from simulator.driver.step import play
from tests.refusals import MPFT

# Presets


def test_an_experiment_names_presets_and_holds_what_they_say():
    assert MPFT.name == "deepseek-v3-pretrain"
    assert (MPFT.model.layers, MPFT.model.moe.routed_experts) == (61, 256)
    assert (MPFT.cluster.gpus, MPFT.cluster.node.chip.sms) == (2048, 132)
    assert (MPFT.plan.pp, MPFT.plan.ep, MPFT.plan.schedule) == (16, 64, "dualpipe")
    assert MPFT.batch.tokens == 15360 * 4096
    assert MPFT.profile.chip == "h800"
    assert MPFT.compute_sms == 112


def test_compute_has_all_sms_where_nothing_is_exchanged():
    """Dense models, and experts that one GPU holds all of; SMs kept for exchanges do not count."""
    alone = MPFT.with_overrides({"plan.ep": 1})
    assert alone.compute_sms == alone.cluster.node.chip.sms == 132
    assert alone.with_overrides({"communication.sms": 132}).compute_sms == 132
    assert MPFT.with_overrides({"plan.ep": 2}).compute_sms == 112


def test_the_multi_rail_experiment_differs_in_its_network_only():
    """ISCA'25 Table 4 compares MPFT and MRFT, all else alike."""
    mrft = Experiment.load("deepseek-v3-pretrain-mrft")
    assert (MPFT.cluster.fabric.kind, mrft.cluster.fabric.kind) == (
        "multi_plane_fat_tree",
        "multi_rail_fat_tree",
    )
    same = ("model", "profile", "plan", "batch", "precision", "communication", "ranks")
    for field in same:
        assert getattr(mrft, field) == getattr(MPFT, field), field
    assert mrft.cluster.node == MPFT.cluster.node


def test_a_toml_file_is_an_experiment_and_may_start_from_one(tmp_path):
    path = tmp_path / "short.toml"
    path.write_text('base = "deepseek-v3-pretrain"\n[batch]\nsequences = 4096\n', encoding="utf-8")
    experiment = Experiment.load(path)
    assert experiment.name == "short"
    assert experiment.batch.sequences == 4096
    assert experiment.batch.sequence_length == 4096
    assert experiment.model == MPFT.model


def test_a_resolved_experiment_describes_itself():
    """What a result keeps is enough to run it again."""
    values = MPFT.model_dump(mode="json")
    assert Experiment.from_values(values).model_dump() == MPFT.model_dump()


def test_what_is_left_out_has_its_default():
    values = {
        "model": "deepseek-v3",
        "cluster": "h800-2048-mpft",
        "plan": {"pp": 16, "ep": 64},
        "batch": {"sequences": 4096, "sequence_length": 4096},
    }
    experiment = Experiment.from_values(values)
    assert experiment.profile is None
    assert experiment.plan.schedule == "1f1b"
    assert experiment.ranks.expert_load.sigma == 0
    assert experiment.dispatch_format.bits == 8


# Overrides


def test_an_override_descends_through_presets():
    changed = MPFT.with_overrides(
        {
            "cluster.node.chip": "h20",
            "cluster.fabric.planes": 4,
            "model.moe.top_k": 6,
            "batch.sequences": 4096,
        }
    )
    assert changed.cluster.node.chip == CHIPS.load("h20")
    assert changed.cluster.fabric.planes == 4
    assert changed.model.moe.top_k == 6
    assert changed.batch.sequences == 4096
    assert MPFT.cluster.node.chip == CHIPS.load("h800")  # the original is left alone
    assert changed.cluster.node.nics == MPFT.cluster.node.nics


def test_an_override_reads_quantities_with_units():
    changed = MPFT.with_overrides({"cluster.node.chip.hbm_bytes_per_s": "4.8 TB/s"})
    assert changed.cluster.node.chip.hbm_bytes_per_s == 4.8e12


def test_overrides_follow_each_other():
    once = MPFT.with_overrides({"cluster.node.chip": "h20"})
    twice = once.with_overrides({"cluster.node.chip.sms": 90})
    assert twice.cluster.node.chip.sms == 90
    assert twice.cluster.node.chip.name == "h20"


def test_what_is_not_overridden_is_not_read_again_and_the_rest_is_as_if_it_were():
    base = Experiment.load("deepseek-v3-pretrain")
    changes = {"plan.pp": 8, "cluster.node.chip.sms": 100, "plan.schedule": "1f1b"}
    changed = base
    for path, value in changes.items():
        changed = changed.with_overrides({path: value})
    assert changed.model is base.model
    assert changed.profile is base.profile
    whole = Experiment.load("deepseek-v3-pretrain", changes)
    assert changed.model_dump() == whole.model_dump()
    assert changed.sources == whole.sources
    assert base.cluster.node.chip.sms != 100, "parts of a document are changed in the copy only"
    numbers = base.with_numbers({"batch.sequences": 7680})
    assert numbers.with_overrides({"plan.ep": 32}).batch == base.batch, "as the document has it"


def test_a_value_keeps_its_source_through_presets():
    sources = MPFT.sources
    assert "NVIDIA H100" in sources["cluster.node.chip.hbm_bytes_per_s"].text
    assert "2412.19437" in sources["model.hidden"].text
    assert "2412.19437" in sources["plan.pp"].text
    assert sources["plan.layout"].assumed
    assert not sources["plan.pp"].assumed


def test_an_overridden_value_says_who_changed_it_and_what_its_source_was():
    changed = MPFT.with_overrides({"communication.sms": 24}, "--set")
    text = changed.sources["communication.sms"].text
    assert text.startswith("--set (was: arXiv 2412.19437v2 §3.2.2")
    assert MPFT.sources["communication.sms"].text.startswith("arXiv")


def test_a_preset_put_in_brings_its_own_sources():
    """H20's bandwidth is not cited with H100's datasheet; what is above the chip keeps its own."""
    changed = MPFT.with_overrides({"cluster.node.chip": "h20"})
    path = "cluster.node.chip.hbm_bytes_per_s"
    assert changed.sources[path] != MPFT.sources[path]
    assert changed.sources[path] == CHIPS.document("h20").sources["hbm_bytes_per_s"]
    assert changed.sources["cluster.nodes"] == MPFT.sources["cluster.nodes"]


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("plan.pp=8", "plan.pp", 8),
        ("ranks.expert_load.sigma = 0.1", "ranks.expert_load.sigma", 0.1),
        ('cluster.node.chip="h20"', "cluster.node.chip", "h20"),
        ("cluster.node.chip=h20", "cluster.node.chip", "h20"),
        ("cluster.node.chip = h20 ", "cluster.node.chip", "h20"),
        ("cluster.node.chip.tdp_w=700 W", "cluster.node.chip.tdp_w", "700 W"),
        ("model.tied_embedding=true", "model.tied_embedding", True),
        ("plan = { pp = 8, ep = 32 }", "plan", {"pp": 8, "ep": 32}),
        ("plan.layout=3d+1m, 14*4m, 1m+mtp+2heads", "plan.layout", "3d+1m, 14*4m, 1m+mtp+2heads"),
        ("a=b=c", "a", "b=c"),
    ],
)  # fmt: skip
def test_an_override_is_toml_or_a_bare_word(text, path, value):
    assert parse_override(text) == (path, value)


@pytest.mark.parametrize("text", ["plan.pp", "", "=8", " =8"])
def test_an_override_without_a_key_or_an_equals_sign_is_refused(text):
    with pytest.raises(SpecError, match="expected KEY=VALUE"):
        parse_override(text)


def test_exchanges_that_nothing_overlaps_run_at_the_exposed_rate(small_experiment):
    """At 0.8 of the rate they take 1.25 of the time; those of pairs as measured."""
    changes = ("communication.exposed_rate", 0.8), ("cluster.node.chip.hbm_capacity_bytes", "8 TB")
    prices = play(small_experiment(*changes)).folded.prices
    slowdowns = [prices.exchange_slowdown(overlapped=overlapped) for overlapped in (True, False)]
    assert slowdowns == [1.0, 1.25]


@pytest.mark.parametrize(("lent", "sms"), [(0.0, 112), (0.5, 122), (1.0, 132)])
def test_chunks_alone_may_compute_on_sms_of_communication(lent, sms):
    """Those that it holds beside overlapped chunks."""
    experiment = MPFT.with_overrides({"communication.lent_sms": lent})
    assert (experiment.alone_sms, experiment.compute_sms) == (sms, 112)


def test_a_model_built_on_another_does_not_go_by_its_name() -> None:
    """A file goes by its own name; a table in a document by what it was built on, and changed."""
    wide = {"base": "llama3.1-405b", "layers": 40, "dense_layers": 40}
    own = Experiment.load("deepseek-v3-pretrain").with_overrides({"model": wide})
    with pytest.raises(InfeasibleError, match=r"llama3.1-405b, changed has no experts"):
        own.plan.check(own.model, own.cluster.gpus)


# A layout that came with a preset


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"plan.pp": 8}, "must have pp = 8 stages, got 16"),
        ({"plan.schedule": "zbv"}, "must have pp x vpp = 32 stages, got 16"),
        ({"plan.schedule": "interleaved", "plan.vpp": 4}, "pp x vpp = 64 stages, got 16"),
        ({"model.layers": 40}, "repeats a unit, deepseek-v3 has 37 x moe layer, got 58"),
        (
            {"model": "deepseek-v2", "plan.ep": 32},
            "repeats a unit, deepseek-v2 has 1 x dense layer",
        ),
    ],
    ids=["pp", "schedule", "vpp", "layers", "model"],
)
def test_a_layout_of_a_preset_gives_way_to_what_is_put_in_its_place(changes, why):
    changed = MPFT.with_overrides(changes)
    assert changed.plan.layout is None
    (note,) = changed.notes
    assert note.startswith("plan.layout: the preset's gives way to an even split, ")
    assert why in note


def test_it_stays_where_it_holds(tmp_path):
    """On another schedule, and in a file that is based on the preset; nothing is told."""
    file = tmp_path / "mine.toml"
    file.write_text('base = "deepseek-v3-pretrain"\n[plan]\nschedule = "1f1b"\n', encoding="utf-8")
    for changed in (MPFT.with_overrides({"plan.schedule": "1f1b"}), Experiment.load(file)):
        assert changed.plan.layout == MPFT.plan.layout
        assert changed.notes == ()


def test_it_is_back_where_it_holds_again():
    """What gave way is asked for still, whatever was put in its place in between."""
    there = MPFT.with_overrides({"plan.pp": 8})
    back = there.with_overrides({"plan.pp": 16})
    assert back.plan.layout == MPFT.plan.layout
    assert back.notes == ()
    assert there.with_numbers({"batch.sequences": 4096}).notes == there.notes


def test_chunks_that_a_schedule_cannot_run_wait_for_another_schedule():
    """`--set plan.vpp=4 --schedule interleaved`: one after the other."""
    asked = MPFT.with_overrides({"plan.vpp": 4})
    with pytest.raises(InfeasibleError, match=r"plan\.vpp: must be 1 for dualpipe"):
        asked.plan.check(asked.model, asked.cluster.gpus)
    there = asked.with_overrides({"plan.schedule": "interleaved"})
    there.plan.check(there.model, there.cluster.gpus)
    assert len(there.plan.stages(there.model)) == 64


def test_in_a_file_it_gives_way_too(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('base = "deepseek-v3-pretrain"\n[plan]\npp = 8\n', encoding="utf-8")
    assert Experiment.load(file).plan.layout is None


def test_a_layout_of_ones_own_does_not():
    own = {"plan.pp": 8, "plan.layout": "3d+1m, 14*4m, 1m+mtp+2heads"}
    changed = MPFT.with_overrides(own)
    assert changed.plan.layout == own["plan.layout"]
    with pytest.raises(InfeasibleError, match="must have pp = 8 stages, got 16"):
        changed.plan.stages(changed.model)


@pytest.mark.parametrize("name", CLUSTERS.names())
@pytest.mark.parametrize("nodes", [1, 2, 8, 64, 300])
def test_a_preset_cluster_of_another_size_has_switches_to_match_or_says_why_not(name, nodes):
    whole, why = CLUSTERS.load(name), ""
    try:
        other = validate(ClusterSpec, whole.model_dump(mode="json") | {"nodes": nodes}, name)
    except SpecError as error:
        why, other = str(error), whole
    assert not why or "must be 1 with fabric scale_up_only" in why or "endpoints, got" in why
    assert "\n" not in why
    assert other.fabric_counts.endpoints == other.endpoints
    more, fewer = (other, whole) if nodes >= whole.nodes else (whole, other)
    assert more.fabric_counts.switches >= fewer.fabric_counts.switches


# Files of one's own


def written(folder, name, text):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_none_in_a_file_takes_away_what_may_be_left_out(tmp_path):
    text = 'base = "deepseek-v3-pretrain"\nprofile = "none"\nplan.layout = "none"\n'
    experiment = Experiment.load(written(tmp_path, "a.toml", text))
    assert (experiment.profile, experiment.plan.layout) == (None, None)
    with pytest.raises(UnknownPresetError, match="unknown preset"):
        Experiment.load(
            written(tmp_path, "b.toml", 'base = "deepseek-v3-pretrain"\nmodel = "none"')
        )


def test_a_file_based_on_ones_own_runs_where_that_does(tmp_path, monkeypatch):
    """The preset's layout gives way to the plan that the first file states."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "small.toml", 'base = "deepseek-v3-pretrain"\nplan.pp = 2\n')
    heir = Experiment.load(written(tmp_path, "heir.toml", 'base = "small.toml"\nname = "x"\n'))
    assert (heir.plan.pp, heir.plan.layout) == (2, None)
    assert heir.with_overrides({"ranks.seed": 1}).plan.layout is None


def test_a_file_is_checked_with_its_overrides(tmp_path):
    path = written(
        tmp_path, "a.toml", 'base = "deepseek-v3-pretrain"\ncommunication.dispatch = "bf16"\n'
    )
    with pytest.raises(SpecError, match="recipe fp8-blockwise sends tokens in fp8"):
        Experiment.load(path)
    assert Experiment.load(path, {"precision.recipe": "bf16"}).recipe.name == "bf16"
