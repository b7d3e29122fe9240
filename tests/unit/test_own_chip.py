"""A chip that does not exist, written in twenty lines: played by datasheet and by measurements."""

import pytest
from click.testing import CliRunner

from hwmodels.errors import SpecError
from simulator import Experiment, run
from simulator.cli import moesim

WHOLE = """\
generation = "hopper"
sms = 160
peak_clock_hz = "1.8 GHz"
vector_flops_per_s = "90 TFLOPS"
hbm_capacity_bytes = "192 GB"
hbm_bytes_per_s = "6 TB/s"
l2_bytes = "96 MiB"
mma_rows = 64
operand_tile = [64, 256]
operand_sms = 1
nvlink_bytes_per_s = "450 GB/s"
tdp_w = "900 W"
tensor = { bf16 = "1400 TFLOPS", fp8 = "2800 TFLOPS" }
[fp8_unit]
accumulation_mantissa_bits = 23
block_scaling = true
casts_in_flight = true
"""
CHANGED = """\
base = "h800"
hbm_bytes_per_s = "5 TB/s"
fp8_unit.transposed_reads = true
"""
SHORT = {"batch.sequences": 4096}
PROFILES = ["none", "h800-deepseek", "h200-trtllm"]


@pytest.fixture
def chip(tmp_path, monkeypatch):
    """Write a chip to where one is, and return the experiment on it."""
    monkeypatch.chdir(tmp_path)

    def written(text, **changes):
        (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
        values = SHORT | {"cluster.node.chip": "mine.toml"} | changes
        return Experiment.load("deepseek-v3-pretrain", values)

    return written


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("text", [WHOLE, CHANGED], ids=["whole", "changed"])
def test_it_is_played_and_faster_than_what_it_betters(text, profile, chip):
    """Every field of it is as good as the H800's or better."""
    assert text.count("\n") <= 20
    mine = chip(text, profile=profile)
    h800 = Experiment.load("deepseek-v3-pretrain", SHORT | {"profile": profile})
    assert mine.cluster.node.chip.name == "mine"
    assert run(mine).metrics.step_time_s < run(h800).metrics.step_time_s


def test_what_prices_rest_on_is_said(chip):
    """A chip that nobody measured has its datasheet, or constants of another by name."""
    mine = chip(WHOLE, profile="h800-deepseek")
    basis = run(mine).model_dump_json()
    assert "profile h800-deepseek, transferred from h800 to mine" in basis
    assert "roofline of mine" in run(chip(WHOLE, profile="none")).model_dump_json()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sms = 160\n", "", "cluster.node.chip.sms: missing"),
        ('"hopper"', '"future"', "generation: input should be 'ampere', 'hopper' or 'blackwell'"),
        ("6 TB/s", "6 TB", "hbm_bytes_per_s: expected a unit of B/s such as '400 Gb/s'"),
        ("mma_rows = 64", "mma_rows = 32", "mma_rows: input should be 16, 64 or 128, got 32"),
        ("[fp8_unit]", "[fp8unit]", "fp8unit: unknown key; did you mean 'fp8_unit'?"),
        ("flight = true", "flight = 3", "casts_in_flight: input should be a valid boolean"),
        ('bf16 = "1400 TFLOPS", ', "", "tensor: needs a 'bf16' peak"),
        (', fp8 = "2800 TFLOPS"', "", "multiplies in fp8, of which mine has no tensor rate"),
        ("sms = 160", "sms = 20", "communication.sms: must leave SMs to compute, at most 19"),
        ("sms = 160", "sms 160", "mine.toml: not TOML"),
    ],
)
def test_what_is_wrong_with_it_is_one_line(old, new, message, chip):
    assert WHOLE.count(old) == 1
    with pytest.raises(SpecError) as caught:
        chip(WHOLE.replace(old, new))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_line_takes_it(chip):
    chip(WHOLE)
    result = CliRunner().invoke(moesim, ["show", "chip", "mine.toml", "--json"])
    assert result.exit_code == 0, result.exception
    assert '"casts_in_flight": true' in result.output
