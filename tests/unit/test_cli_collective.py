"""The command `collective`: what it prints, and the one line with which it refuses."""

import json

import pytest

from hwmodels.errors import InputError
from simulator.cli.collective import _spelled
from simulator.network.collectives import KINDS

MPFT = ("--cluster", "h800-2048-mpft")
SMALL = ("--ranks", 16, "--bytes", "1 GiB", *MPFT)


def document(invoke, *arguments):
    return json.loads(invoke("collective", *arguments, "--json").stdout)


def test_all_is_told_in_one_document(invoke):
    told = document(invoke, "all_to_all", *SMALL)
    assert told["size_bytes"] == 2**30
    assert (told["ranks"], told["nodes"], told["groups"]) == (16, 2, 1)
    assert told["wire_s"] == pytest.approx(2**30 / 2 / 50e9, rel=1e-9)
    assert told["time_s"] == told["fixed_s"] + told["wire_s"]
    assert told["busbw_bytes_per_s"] == pytest.approx(told["algbw_bytes_per_s"] * 15 / 16)
    assert 1 <= told["time_over_bound"] < 1.15
    assert told["busiest_links"][0]["link"].startswith("nic:")
    assert told["busiest_links"][0]["load"] == pytest.approx(told["wire_s"] / told["time_s"])
    assert "datasheet" in told["basis"]
    assert "nccl-tests" in told["conventions"]


def test_options_reach_the_network(invoke):
    plain = document(invoke, "all_to_all", *SMALL)
    broken = document(invoke, "all_to_all", *SMALL, "--fault", "plane:3")
    assert broken["faults"] == ["plane:3"]
    assert broken["wire_s"] == pytest.approx(plain["wire_s"] * 8 / 7, rel=1e-9)
    changed = ("--set", 'cluster.node.nic.link_bytes_per_s="200 Gb/s"')
    assert document(invoke, "all_to_all", *SMALL, *changed)["wire_s"] == pytest.approx(
        2 * plain["wire_s"], rel=1e-9
    )
    ours = document(invoke, "all_to_all", *SMALL, "--library", "deepep-h800")
    assert ours["wire_s"] == pytest.approx(plain["wire_s"] * 50 / 44, rel=1e-9)
    assert "deepep-h800" in ours["basis"]
    ring = document(invoke, "all_gather", *SMALL, "--algorithm", "ring", "--routing", "ecmp")
    assert (ring["algorithm"], ring["routing"]) == ("ring", "ecmp")


def test_groups_run_at_once_and_random_ones_follow_the_seed(invoke):
    many = ("all_to_all", *SMALL, "--groups", 4, "--placement", "random")
    first, again, other = (document(invoke, *many, "--seed", seed) for seed in (1, 1, 2))
    assert first == again
    assert first["group_time_s"] != other["group_time_s"]
    assert len(first["group_time_s"]) == 4
    assert first["time_s"] == max(first["group_time_s"])


def test_people_read_the_same(invoke):
    text = invoke("collective", "all_to_all", *SMALL, "--groups", 2).stdout
    for words in (
        "2 groups of 16 ranks on 4 nodes",
        "bus bandwidth",
        "byte bound",
        "nic:0.0 out and",
    ):
        assert words in text
    assert "routing does not matter" in text  # four nodes sit under one leaf
    crossing = invoke("collective", "all_to_all", "--ranks", 512, "--bytes", 8, *MPFT).stdout
    assert "routing does not matter" not in crossing
    alone = invoke("collective", "all_reduce", "--ranks", 1, "--bytes", 8, *MPFT).stdout
    assert "nothing to send" in alone


def test_expert_exchanges_are_told_too(invoke):
    arguments = ("--ranks", 64, *MPFT, "--library", "deepep-h800")
    told = document(invoke, "dispatch", *arguments)
    assert told["time_s"] >= told["bound_s"] > 0
    assert told["kind"] == "dispatch"
    text = invoke("collective", "combine", *arguments).stdout
    assert "logical bandwidth" in text
    with pytest.raises(InputError, match="--bytes: does not go with dispatch and combine"):
        invoke("collective", "dispatch", *SMALL)


def test_tokens_of_deepseek_v2_go_to_three_devices(invoke):
    """Its device-limited routing on the eight GPUs of a node; one copy in eight stays at home."""
    arguments = ("dispatch", "--ranks", 8, "--model", "deepseek-v2", *MPFT)
    told = document(invoke, *arguments)
    token_bytes = 5120 * (1 + 4 / 128)  # FP8 and a scale for every 128 elements
    assert told["nvlink_bytes"] == pytest.approx(4096 * 3 * 7 / 8 * token_bytes, rel=0.005)
    assert told["moe"]["groups_per_token"] == 3
    text = invoke("collective", *arguments).stdout
    assert "6 of 160 experts in its best 3 of 8 groups" in text


@pytest.mark.parametrize("kind", [*KINDS, "dispatch", "combine"])
def test_a_collective_goes_by_any_of_its_spellings(kind):
    words = kind.split("_")
    for joint in ("", "-", "_", " "):
        spelled = joint.join(words)
        for each in (spelled, spelled.upper(), joint.join(word.title() for word in words)):
            assert _spelled(each) == kind


def test_the_spelling_of_nccl_tests_is_told_under_our_name(invoke):
    assert document(invoke, "AllReduce", *SMALL)["kind"] == "all_reduce"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("option", "value"),
    [("tokens", 4096), ("mode", "normal"), ("sms", 20), ("model", "deepseek-v3")],
)
def test_a_collective_refuses_what_only_exchanges_have(invoke, kind, option, value):
    """Even at its default: somebody thought that it mattered."""
    message = f"--{option}: goes with dispatch and combine only, got '{value}' with {kind}"
    with pytest.raises(InputError, match=message):
        invoke("collective", kind, *SMALL, f"--{option}", value)


def test_the_network_is_drawn_with_its_load(invoke, tmp_path):
    file = tmp_path / "load.png"
    invoke("collective", "all_to_all", *SMALL, "--routing", "adaptive", "--figure", file)
    assert file.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("all_to_one", *SMALL), "unknown kind 'all_to_one'; did you mean 'all_to_all'"),
        (("all_to_all", "--ranks", 16, *MPFT), "--bytes: is needed"),
        (("all_to_all", "--ranks", 16, "--bytes", "5 s", *MPFT), "--bytes: expected a unit of B"),
        (
            ("all_to_all", "--ranks", 16, "--bytes", "0", *MPFT),
            "--bytes: must be from 1 B to 1 EiB",
        ),
        (
            ("all_to_all", "--ranks", 16, "--bytes", "-1", *MPFT),
            "--bytes: must be from 1 B to 1 EiB",
        ),
        (("all_to_all", "--ranks", 0, "--bytes", "1", *MPFT), "ranks: must be at least 1, got 0"),
        (("all_to_all", "--ranks", 4096, "--bytes", "1", *MPFT), "2048 GPUs.*got 4096"),
        (("all_to_all", *SMALL, "--groups", 200), "got 3200"),
        (("all_to_all", *SMALL, "--routing", "best"), "routing: unknown 'best'"),
        (("all_to_all", *SMALL, "--placement", "near"), "placement: unknown 'near'"),
        (("all_to_all", *SMALL, "--algorithm", "ring"), "all_to_all has no 'ring'"),
        (("all_to_all", *SMALL, "--algorithm", "rings"), "all_to_all has no 'rings'"),
        (("all_to_all", *SMALL, "--library", "ncl"), "library 'ncl': unknown preset"),
        (("all_to_all", *SMALL, "--fault", "nic:1"), "faults"),
        (("all_to_all", *SMALL, "--fault", "nic:999.0"), "node must be below 256"),
        (("all_to_all", *SMALL, "--fault", "node:1"), "node 1 is down"),
        (("all_to_all", *SMALL, "--set", "fabric.planes=4"), "must begin with 'cluster.'"),
        (("all_to_all", *SMALL, "--set", "cluster.fabric.planes=0"), "fabric.planes"),
        (("all_to_all", *SMALL, "--set", "cluster.fabric.planes=3"), "must divide the 8 NIC ports"),
        (("all_to_all", *SMALL, "--set", "cluster.fabric.switch_radix=2"), "holds"),
        (("dispatch", *SMALL[:2], *MPFT, "--mode", "fast"), "normal, low-latency, got 'fast'"),
    ],
)
def test_bad_input_is_one_line(invoke, arguments, words):
    with pytest.raises(InputError, match=words) as refused:
        invoke("collective", *arguments)
    assert refused.value.exit_code == 2
    assert "\n" not in str(refused.value)


def test_ranks_that_are_cut_off_are_named(invoke):
    faults = [part for port in range(8) for part in ("--fault", f"nic:1.{port}")]
    with pytest.raises(InputError, match="ranks on node 1 are cut off from those on node 0"):
        invoke("collective", "all_reduce", *SMALL, *faults)


def test_a_file_stands_where_a_presets_name_may(invoke, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text('base = "h800-2048-mpft"\nnodes = 16\n')
    (tmp_path / "chip.toml").write_text('base = "h800"\n')
    assert (
        json.loads(invoke("show", "cluster", "mine.toml", "--json").output)["values"]["nodes"] == 16
    )
    asked = ["collective", "all-reduce", "--ranks", "8", "--bytes", "1 MiB", "--json"]
    by_file, by_name = (
        json.loads(invoke(*asked, "--cluster", name, *changes).output)
        for name, changes in (
            ("mine.toml", ["--set", "cluster.node.chip=chip.toml"]),
            ("h800-2048-mpft", ["--set", "cluster.nodes=16"]),
        )
    )
    assert by_file["time_s"] == by_name["time_s"]


def test_a_file_built_on_itself_is_refused(tmp_path, monkeypatch) -> None:
    from hwmodels.cluster import CLUSTERS
    from hwmodels.errors import SpecError

    monkeypatch.chdir(tmp_path)
    (tmp_path / "circle.toml").write_text('base = "circle.toml"\n')
    with pytest.raises(SpecError, match=r"built on itself|nested"):
        CLUSTERS.load("circle.toml")
