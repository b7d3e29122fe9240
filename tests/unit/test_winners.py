"""Which configuration takes the place of the present choice, and how it gets into the table."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from calibration.judge.winners import winners, write_choices
from calibration.measure.measurement import DRY_DEVICE, Measurement, shape_text
from hwmodels.errors import CalibrationError
from kernels._choices import read_choices

GPU = "NVIDIA of the tests"
A, B, C = '{"rows":8}', '{"rows":32}', '{"rows":64}'
SMALL, LARGE = {"m": 256, "k": 7168}, {"m": 4096, "k": 7168}
LONG = {"m": 32768, "k": 7168}


def row(config: str = "", time_s: float | None = 1.0, shape=LARGE, **other) -> Measurement:
    """A row of `quantize`; quantiles are 5 % off the median unless given."""
    spread = other.pop("spread", 0.05)
    values = {
        "kernel": "quantize", "provider": "moesim", "library": "triton", "version": "3.6.0",
        "shape": shape_text(shape), "mode": "isolated", "held_sms": 0, "sms": 132, "sustained": 0,
        "time_s": time_s, "p20_s": time_s and time_s * (1 - spread),
        "p80_s": time_s and time_s * (1 + spread), "repeats": 30, "flops": 0.0, "bytes": 1.0,
        "sm_clock_hz": None, "power_w": None, "temperature_c": None, "device": GPU, "driver": "1",
        "torch": "2.11", "triton": "3.6.0", "date": "2026-01-01", "config": config,
        "error": "" if time_s else "RuntimeError: out of resources",
    }  # fmt: skip
    return Measurement(**values | other)


def test_the_fastest_that_is_clearly_faster_wins() -> None:
    (found,) = winners([row(), row(A, 0.8), row(B, 0.7), row(C, 1.2)])
    assert (found.config, found.shape_class, found.device) == (B, "m>512", GPU)
    assert found.time_s == pytest.approx(0.7)
    assert found.runner_up_s == pytest.approx(0.8)
    assert found.present_s == pytest.approx(1.0)
    assert not found.stays


def test_within_the_noise_the_present_choice_stays() -> None:
    """p80 of 0.92 x 1.05 is above p20 of 0.95; 0.90 x 1.05 is below."""
    (found,) = winners([row(), row(A, 0.92)])
    assert found.stays
    assert (found.time_s, found.runner_up_s) == (pytest.approx(1.0), pytest.approx(0.92))
    assert winners([row(), row(A, 0.90)])[0].config == A


def test_shapes_of_a_class_weigh_alike_and_classes_are_apart() -> None:
    """Geometric mean of 0.5 and 8 against 1 and 10: sqrt(4) against sqrt(10)."""
    rows = [row(), row(A, 0.5), row("", 10.0, LONG), row(A, 8.0, LONG)]
    rows += [row("", 1.0, SMALL), row(A, 2.0, SMALL)]
    small, large = winners(rows)
    assert (small.shape_class, small.config) == ("m<=512", "")
    assert (large.shape_class, large.config) == ("m>512", A)
    assert large.time_s == pytest.approx(2.0)
    assert large.present_s == pytest.approx(math.sqrt(10))


def test_no_shape_pays_for_another() -> None:
    """Far ahead on one shape and 20 % behind on the other."""
    (found,) = winners([row(), row(A, 0.2), row("", 1.0, LONG), row(A, 1.2, LONG)])
    assert found.stays


def test_who_fails_or_was_not_tried_at_a_shape_of_the_class_is_out() -> None:
    rows = [row(), row(A, 0.1), row(B, 0.8), row("", 1.0, LONG), row(B, 0.8, LONG)]
    assert winners(rows)[0].config == B
    assert winners([*rows, row(A, None, LONG)])[0].config == B
    assert winners([*rows, row(A, 0.1, LONG)])[0].config == A
    only = [row(), row(A, 0.1), row("", 1.0, LONG), row(A, None, LONG)]
    assert winners(only) == []


def test_a_shape_that_was_not_swept_does_not_count() -> None:
    """The ops of a model are measured as `choose` has them, at many more shapes."""
    assert winners([row(), row(A, 0.5), row("", 1.0, LONG)])[0].config == A
    assert winners([row(), row("", 1.0, LONG)]) == []


def test_where_the_present_choice_has_no_time_there_is_nothing_to_compare() -> None:
    assert winners([row(A, 0.5), row(B, 0.4)]) == []
    assert winners([row("", None), row(A, 0.5)]) == []


@pytest.mark.parametrize(
    "change",
    [
        {"provider": "torch"},
        {"mode": "limited", "held_sms": 20},
        {"sustained": 1},
        {"device": DRY_DEVICE},
        {"p80_s": None},
        {"time_s": 0.0},
    ],
)
def test_rows_of_something_else_are_left_out(change) -> None:
    plain = [row(), row(A, 0.8), row(B, 0.5)]
    assert winners(plain)[0].config == B
    (found,) = winners([*plain[:2], replace(plain[2], **change)])
    assert found.config == A
    assert winners([replace(each, **change) for each in plain if change.get("device")]) == []


def test_wrong_numbers_win_nothing() -> None:
    rows = [row(), row(A, 0.8), row(B, 0.5)]
    assert winners(rows, {("quantize", B)})[0].config == A
    assert winners(rows, {("swiglu", B)})[0].config == B
    assert winners(rows, [("quantize", "")]) == []


def test_devices_and_versions_of_triton_are_apart() -> None:
    rows = [row(), row(A, 0.5), row(B, 0.8)]
    there = [replace(each, device="another", triton="3.7.1") for each in (rows[0], rows[2])]
    assert [(w.device, w.config) for w in winners([*rows, *there])] == [(GPU, A), ("another", B)]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"kernel": "quantise"}, "kernel 'quantise': unknown"),
        ({"shape": '{"k":1}'}, "has no size 'm'"),
        ({"shape": "{"}, "row of quantize {: "),
        ({"shape": "[1]"}, "row of quantize"),
        ({"shape": '{"m":"many"}'}, "row of quantize"),
    ],
)
def test_a_row_that_has_no_class_is_refused_in_one_line(bad, message: str) -> None:
    with pytest.raises(CalibrationError, match=message) as caught:
        winners([row(), replace(row(A), **bad)])
    assert "\n" not in str(caught.value)


def test_winners_are_written_and_read_again_beside_other_devices(tmp_path: Path) -> None:
    path = tmp_path / "choices.csv"
    rows = [row(), row(A, 0.8, date="2026-02-02"), row("", 1 / 3, SMALL), row(B, 0.1, SMALL)]
    write_choices(path, winners(rows))
    before = read_choices(path)
    assert {key: json.loads(choice.config) for key, choice in before.items()} == {
        ("quantize", "m<=512", GPU): {"rows": 32},
        ("quantize", "m>512", GPU): {"rows": 8},
    }
    small = before["quantize", "m<=512", GPU]
    assert small.time_s == winners(rows)[0].time_s
    assert small.runner_up_s == winners(rows)[0].runner_up_s
    assert before["quantize", "m>512", GPU].date == "2026-02-02"

    write_choices(path, winners([replace(each, device="another") for each in rows]))
    both = read_choices(path)
    assert {key for key in both if key[2] == GPU} == set(before)
    assert {key for key in both if key[2] == "another"} == {(*key[:2], "another") for key in before}

    write_choices(path, winners([row(), row(C, 0.5)]))
    after = read_choices(path)
    assert after["quantize", "m>512", GPU].config == C
    assert len(after) == 4

    text = path.read_text(encoding="utf-8")
    write_choices(path, winners([row(), row(A, 1.0)]))
    assert path.read_text(encoding="utf-8") == text


def test_of_two_versions_of_triton_the_later_measured_is_written(tmp_path: Path) -> None:
    path = tmp_path / "choices.csv"
    old = [row(), row(A, 0.5)]
    new = [replace(each, triton="3.10.0", date="2026-05-01") for each in (row(), row(B, 0.8))]
    write_choices(path, reversed(winners([*old, *new])))
    (choice,) = read_choices(path).values()
    assert (choice.triton, choice.config) == ("3.10.0", B)


def test_a_table_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "choices.csv"
    path.write_text("to,buy\nmilk,1\n", encoding="utf-8")
    with pytest.raises(CalibrationError, match=r"choices\.csv:1: the columns must be"):
        write_choices(path, winners([row(), row(A, 0.5)]))
    assert path.read_text(encoding="utf-8") == "to,buy\nmilk,1\n"
