"""The steps from one result's time to another's."""

import numpy as np
import pytest

from hwmodels.errors import InputError
from simulator.tell.compare import compare
from simulator.tell.style import BETTER, WORSE
from simulator.tell.waterfall import waterfall


@pytest.fixture(scope="module")
def comparison(short_run):
    return compare(short_run(), short_run(("communication.sms", 16)))


def test_steps_lead_from_the_one_to_the_other(comparison):
    axes = waterfall(comparison).axes[0]
    before, *steps, after = axes.patches[0], *axes.patches[2:], axes.patches[1]
    reached = before.get_width()
    changed = [each for each in comparison.phases if each.difference]
    assert len(steps) == len(changed) > 2
    for bar, change in zip(steps, changed, strict=True):
        assert bar.get_width() == pytest.approx(change.difference)
        slower = change.difference > 0
        assert bar.get_x() == pytest.approx(reached)
        colour = tuple(bar.get_facecolor())
        assert colour == pytest.approx(_rgba(WORSE if slower else BETTER))
        reached += change.difference
    assert reached == pytest.approx(after.get_width())
    step = comparison.headline[0]
    assert [before.get_width(), after.get_width()] == pytest.approx([step.before, step.after])


def _rgba(color):
    import matplotlib as mpl

    return mpl.colors.to_rgba(color)


def test_the_title_says_what_was_changed_and_what_came_of_it(comparison):
    title = waterfall(comparison).get_suptitle()
    assert title.startswith("step time ")
    assert title.endswith("communication.sms 20 to 16")


def test_results_that_are_alike_have_no_steps(short_run):
    axes = waterfall(compare(short_run(), short_run())).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["before", "after"]
    assert len(set(np.round([bar.get_width() for bar in axes.patches], 12))) == 1


def test_differences_of_draws_have_their_spread(drawn_run):
    both = compare(drawn_run(), drawn_run(("communication.sms", 24)))
    axes = waterfall(both).axes[0]
    spreads = [line for line in axes.lines if line.get_linewidth() == 1.4]
    assert len(spreads) == sum(each.difference != 0 for each in both.phases)


def test_compare_draws_to_a_file(invoke, short_run, tmp_path):
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, changes in zip(paths, ((), (("communication.sms", 16),)), strict=True):
        path.write_text(short_run(*changes).to_json(), encoding="utf-8")
    file = tmp_path / "steps.png"
    done = invoke("compare", *paths, "--figure", file)
    assert done.stderr == f"wrote {file}\n"
    assert file.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="--figure: must end in one of"):
        invoke("compare", *paths, "--figure", tmp_path / "steps.doc")
