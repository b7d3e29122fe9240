"""The picture of a cluster."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure

from hwmodels.cluster import CLUSTERS
from hwmodels.errors import InfeasibleError
from hwmodels.faults import FaultSpec
from simulator.cli import moesim
from simulator.tell import topology as picture
from simulator.tell.link_load import LinkLoad
from simulator.tell.topology import draw_cluster

MPFT = CLUSTERS.load("h800-2048-mpft")
ALL_WELL = np.zeros(MPFT.topology().directed_links, np.bool_)


def load_of(links: dict[int, float]) -> LinkLoad:
    busy = np.zeros(MPFT.topology().directed_links)
    for link, share in links.items():
        busy[link] = share
    return LinkLoad("a run", busy, np.zeros(MPFT.gpus))


def test_cables_between_two_switches_are_one_line() -> None:
    lines, cables, _, gone = picture._lines(MPFT.topology(), 3, None, ALL_WELL)
    assert not gone.any()
    assert len(lines) == 8 * 4  # leaves times spines of a plane
    assert set(cables.tolist()) == {8}  # 32 uplinks of a leaf over 4 spines
    assert len(np.unique(lines)) == 8 + 4


def test_a_line_is_as_busy_as_its_busiest_cable_in_either_direction() -> None:
    topology = MPFT.topology()
    up, down = (int(topology.uplink(0, 0)) + way * topology.clos.leaf_links for way in (0, 1))
    for link in (up, up + 1, down):
        lines, _, busy, _ = picture._lines(topology, 0, load_of({link: 0.7}), ALL_WELL)
        ends = {topology.tail[link], topology.head[link]}
        assert [set(line) == ends for line in lines.tolist()] == (busy == 0.7).tolist()
        assert sorted(set(busy.tolist())) == [0.0, 0.7]
    assert not picture._lines(topology, 1, load_of({up: 0.7}), ALL_WELL)[
        2
    ].any()  # of another plane


@pytest.mark.parametrize("name", CLUSTERS.names())
def test_every_preset_is_drawn_or_says_why_not(name: str, tmp_path: Path) -> None:
    cluster, file = CLUSTERS.load(name), tmp_path / "cluster.png"
    if cluster.fabric.kind in ("slim_fly", "dragonfly"):
        with pytest.raises(InfeasibleError, match="which is not routed yet"):
            draw_cluster(cluster, file)
        return
    draw_cluster(cluster, file)
    assert file.stat().st_size > 5000


@pytest.mark.parametrize(
    ("name", "shapes"), [("h800-2048-ft2", [(64, 32)]), ("h800-2048-ft3", [(64, 32), (64, 1)])]
)
def test_a_plane_of_many_lines_is_a_matrix_of_every_link(
    name: str, shapes: list[tuple[int, int]]
) -> None:
    """Each cell is the busier direction of the busiest cable between its two switches."""
    topology = CLUSTERS.load(name).topology()
    busy = np.random.default_rng(0).random(topology.directed_links)
    axes = Figure().subplots()
    load = LinkLoad("a run", busy, np.zeros(2048))
    picture._draw_plane(axes, topology, 0, load, np.zeros(len(busy), np.bool_))
    images = [np.ma.filled(part.images[0].get_array(), np.nan) for part in axes.child_axes]
    assert [image.shape for image in images] == shapes
    lines, _, expected, _ = picture._lines(topology, 0, load, np.zeros(len(busy), np.bool_))
    assert np.concatenate([image.ravel() for image in images]) == pytest.approx(expected)
    leaf, spine = lines[0]
    between = (topology.tail == leaf) & (topology.head == spine)
    between |= (topology.tail == spine) & (topology.head == leaf)
    assert images[0][0, 0] == busy[between].max()


def test_links_that_are_down_are_crossed_out_in_a_matrix() -> None:
    cluster = CLUSTERS.load("h800-2048-ft2")
    broken = cluster.model_copy(update={"faults": (FaultSpec.model_validate("spine:0.2"),)})
    axes = Figure().subplots()
    dead = broken.degraded_bytes_per_s() == 0
    picture._draw_plane(axes, broken.topology(), 0, None, dead)
    crosses = axes.child_axes[0].collections[0].get_offsets()
    assert crosses.tolist() == [[2, leaf] for leaf in range(64)]


def test_a_line_is_gone_when_all_its_cables_are() -> None:
    broken = MPFT.model_copy(update={"faults": (FaultSpec.model_validate("spine:0.2"),)})
    dead = broken.degraded_bytes_per_s() == 0
    topology = MPFT.topology()
    lines, _, _, gone = picture._lines(topology, 0, None, dead)
    spine = topology.spine_vertex(0, 2)
    assert [spine in line for line in lines.tolist()] == gone.tolist()
    assert not picture._lines(topology, 1, None, dead)[3].any()


def test_a_plane_that_is_down_is_said_so(tmp_path: Path) -> None:
    broken = MPFT.model_copy(update={"faults": (FaultSpec.model_validate("plane:3"),)})
    with mpl.rc_context({"svg.fonttype": "none"}):
        draw_cluster(broken, tmp_path / "broken.svg")
    text = (tmp_path / "broken.svg").read_text(encoding="utf-8")
    assert "plane 3 is down" in text
    assert "plane 2 is down" not in text


def test_load_changes_the_picture(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("without.svg", "idle.svg", "busy.svg")]
    busy = load_of({int(MPFT.topology().uplink(0, 0)): 1.0})
    for file, load in zip(files, (None, load_of({}), busy), strict=True):
        draw_cluster(MPFT, file, load)
    pictures = [file.read_text(encoding="utf-8") for file in files]
    assert len(set(pictures)) == 3
    assert "of the time" not in pictures[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["cluster", "h800-2048-mpft", "--figure", "x.doc"],
            "--figure: must end in one of .png, .svg, .pdf, got 'x.doc'",
        ),
        (
            ["chip", "h800", "--figure", "x.png"],
            "--figure: is about the network of a cluster, got a chip",
        ),
        (
            ["cluster", "h800-2048-mpft", "--figure", "missing/x.png"],
            "--figure missing/x.png: no such file or directory",
        ),
    ],
)
def test_a_picture_that_cannot_be_is_refused(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(moesim, ["show", *arguments])
    assert str(result.exception) == message
    assert result.exception.exit_code == 2  # type: ignore[union-attr]


def test_show_draws_a_cluster(tmp_path: Path) -> None:
    file = tmp_path / "mrft.png"
    arguments = ["show", "cluster", "h800-2048-mrft", "--figure", str(file)]
    result = CliRunner().invoke(moesim, arguments)
    assert result.exit_code == 0, result.output
    assert file.stat().st_size > 5000
