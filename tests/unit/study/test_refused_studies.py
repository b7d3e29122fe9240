"""Bad study files: one line, exit 2, and no folder left behind."""

import subprocess
import sys
from pathlib import Path

import pytest

from hwmodels.errors import InputError
from tests.unit.study.studies import SMALL

CHECKOUT = Path(__file__).resolve().parents[3]
NVLINK = '"cluster.node.chip.nvlink_bytes_per_s"'
SMS = 'set = { "communication.sms" = [8, 20, 132] }'
FIGURE = '\n[[figures]]\nkind = "curves"\nname = "one"\ntitle = "One"\nx = "nvlink"\ny = ["step_time_s"]\n'  # noqa: E501
AXES = "".join(
    f'\n[[axes]]\nname = "a{n}"\nset = {{ "{path}" = {{ from = 1, to = 2, count = 10000 }} }}\n'
    for n, path in enumerate(("communication.exposed_rate", "communication.lent_sms"))
)


def changed(old, new):
    assert old in SMALL
    return SMALL.replace(old, new)


BAD = {
    "unknown field": (changed("objectives", "objektives"), "objektives"),
    "empty axis": (changed("[8, 20, 132]", "[]"), "axes.1"),
    "no axis": (SMALL.partition("[[axes]]")[0], "axes"),
    "10^9 points": (SMALL + AXES, "must have at most 1,000,000 points"),
    "10^12 points in one": (
        changed(SMS, 'set = { "communication.sms" = { from = 1, to = 1e12, step = 1 } }'),
        "must have at most 1,000,000 points",
    ),
    "unknown objective": (changed("mfu_causal", "mfu_casual"), "did you mean 'mfu_causal'"),
    "an objective twice": (changed("mfu_causal", "step_time_s"), "once"),
    "dollars without a price": (
        changed("usd_per_gpu_hour = 2.0", "").replace("mfu_causal", "tokens_per_usd"),
        "it needs usd_per_gpu_hour",
    ),
    "no such path": (changed("communication.sms", "communication.smss"), "did you mean 'sms'"),
    "no such preset": (changed(SMS, 'set = { "cluster.node.chip" = ["h801"] }'), "'h801'"),
    "no such experiment": (changed("deepseek-v3-pretrain", "deepseek-v9"), "deepseek-v9"),
    "not TOML": ("title = ", "not TOML"),
    "null byte": (SMALL + "\0", "not TOML"),
    "an axis twice": (changed('name = "sms"', 'name = "nvlink"'), "nvlink must be in one place"),
    "a field twice": (changed('"communication.sms"', NVLINK), "must be in one place"),
    "an axis called like a number": (changed('name = "sms"', 'name = "power_w"'), "'power_w'"),
    "an axis called like a column": (changed('name = "sms"', 'name = "seed"'), "'seed'"),
    "unequal lengths": (
        changed(SMS, 'set = { "communication.sms" = [8, 20], "batch.sequences" = [160] }'),
        "equally many",
    ),
    "hostile condition": (f"where = [\"__import__('os')\"]\n{SMALL}", "functions are"),
    "condition of nothing": (f'where = ["nis > 1"]\n{SMALL}', "no axis or field 'nis'"),
    "a name that leads away": (f'name = "../away"\n{SMALL}', "name"),
    "unknown kind of figure": (SMALL + FIGURE.replace("curves", "pie"), "pie"),
    "figure of no axis": (SMALL + FIGURE.replace("nvlink", "nvlonk"), "nvlonk"),
    "figure of no number": (SMALL + FIGURE.replace("step_time_s", "step_tim_s"), "step_tim_s"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_study_is_refused_before_anything_is_played(invoke, tmp_path, monkeypatch, name):
    if "figure" in name:
        pytest.importorskip("simulator.tell.study_figures")
    text, told = BAD[name]
    file, folder = tmp_path / "small.toml", tmp_path / "out"
    file.write_text(text, encoding="utf-8")
    monkeypatch.setattr("simulator.study.run.work", None)
    with pytest.raises(InputError) as error:
        invoke("study", file, "--out", folder)
    assert error.value.exit_code == 2
    assert told in str(error.value)
    assert len(str(error.value)) < 290
    assert not folder.exists()


def test_a_study_built_on_itself_is_told(invoke, tmp_path):
    file = tmp_path / "small.toml"
    circle = tmp_path / "circle.toml"
    circle.write_text(f'base = "{circle}"\n', encoding="utf-8")
    text = changed('base = "deepseek-v3-pretrain"', f'base = "{circle}"')
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as error:
        invoke("study", file, "--out", tmp_path / "out")
    assert len(str(error.value)) < 290
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--workers", "-2"), "-2 is not in the range"),
        (("--executor", "rya"), "did you mean 'ray'"),
        (("--point", "24"), "--point: must be from 0 to 23, got 24"),
        (("--set", "plan.ppp=4"), "ppp"),
    ],
)
def test_bad_options_are_one_line_and_exit_2(tmp_path, options, told):
    file = tmp_path / "small.toml"
    file.write_text(SMALL, encoding="utf-8")
    command = [sys.executable, "-m", "simulator.cli", "study", file, "--out", tmp_path / "out"]
    done = subprocess.run(
        [*map(str, command), *options], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_number_of_workers_that_cannot_be_is_refused(small_study, tmp_path):
    for workers in (0, -1):
        with pytest.raises(InputError, match="workers: must be 1 or more"):
            small_study().run(tmp_path / "out", workers=workers)
    assert not (tmp_path / "out").exists()
