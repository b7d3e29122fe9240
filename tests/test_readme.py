"""The README's table is regenerated and compared; its Python examples run.

`python tests/test_readme.py` writes the table anew.
"""

import re
from pathlib import Path

from hwmodels.units import format_quantity
from simulator import Experiment, run
from simulator.published.reproduce import Row, headline, reproduce

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- published -->\n", "<!-- /published -->\n"
ROWS = {
    "isca25.table4.mpft.step_time_s": "training step",
    "isca25.table4.mpft.tokens_per_day": "tokens per day",
    "isca25.table4.mpft.forward_backward_s": "forward and backward overlapped (1F1B), mean rank",
    "isca25.table4.mpft.forward_backward_s.rank0": "the same, rank 0",
    "isca25.table4.mpft.forward_s": "forward alone (1F), mean rank",
    "isca25.table4.mpft.forward_s.rank0": "the same, rank 0",
    "isca25.table4.mpft.backward_plus_weight_s": "backward and weight alone (1B + 1W), mean rank",
    "isca25.table4.mpft.backward_plus_weight_s.rank0": "the same, rank 0",
    "isca25.table4.mpft.bubble_s": "bubble, mean rank",
    "isca25.table4.mpft.bubble_s.rank0": "the same, rank 0",
    "isca25.table4.mpft.optimizer_s": "optimizer, mean rank",
    "isca25.table4.mpft.optimizer_s.rank0": "the same, rank 0",
    "v3.cost.gpu_hours_per_trillion_tokens": "GPU hours per trillion tokens",
    "v3.dualpipe.microbatches_in_flight": "DualPipe: micro-batches in flight on a rank",
    "isca25.table1.deepseek-v3.kv_bytes_per_token": "KV cache per token",
    "isca25.table2.deepseek-v3.training_flops_per_token": "training FLOPs per token",
    "isca25.table4.mpft.mfu_causal": "MFU, causal, from the published step",
    "isca25.ep_limit.ib-400g.tpot_s": "expert-parallel decoding limit, 400G InfiniBand",
    "isca25.fig7.32.dispatch_bytes_per_s": "DeepEP dispatch on 32 GPUs",
    "isca25.fig7.128.combine_bytes_per_s": "DeepEP combine on 128 GPUs",
    "deepep.low-latency.16.dispatch_s": "DeepEP low-latency dispatch, 16 GPUs",
    "deepep.low-latency.128.combine_s": "DeepEP low-latency combine, 128 GPUs",
    "isca25.fig5.mpft.64.alltoall_bytes_per_s": "NCCL all-to-all on 64 GPUs",
    "isca25.table3.mpft.switches": "switches of an eight-plane network, 16,384 GPUs",
    "isca25.table3.dragonfly.cost_usd": "price of a Dragonfly, 261,632 GPUs",
    "trace.h800.pair_s": "overlapped pair of the H800 trace",
    "trace.h800.glue_total_s": "memory-bound kernels of one layer pair",
    "trace.h800.collective_wait_s": "wait for other ranks per exchange",
}


def published_table() -> str:
    """Return the README's table and the headline below it."""
    rows = {row.id: row for row in reproduce()}
    lines = [
        "| DeepSeek-V3 | published | simulated | error | P10-P90 | all GPUs alike | error | kind |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for identifier, name in ROWS.items():
        unlike = rows.get(f"{identifier}.unlike")
        lines.append(_line(rows[identifier], name, unlike))
    return "\n".join([*lines, "", f"All rows: {headline(list(rows.values()))}.", ""])


def _line(row: Row, name: str, unlike: Row | None) -> str:
    """Return a row, of the run whose GPUs differ first where there is one."""
    shown = [row] if unlike is None else [unlike, row]
    cells = [f"{_text(each.simulated, row.unit)} | {each.relative_error:+.1%}" for each in shown]
    if unlike is None or unlike.p10 is None or unlike.p90 is None:
        cells += ["", " | "]
    else:
        cells.insert(1, f"{_text(unlike.p10, row.unit)} to {_text(unlike.p90, row.unit)}")
    return " | ".join([f"| {name}", _text(row.published, row.unit), *cells, f"{row.kind} |"])


def _text(value: float, unit: str) -> str:
    if unit == "tokens":
        return f"{value / 1e9:.1f} B"
    if unit == "USD":
        return f"{value / 1e6:,.0f} M$"
    if unit in ("s", "B", "B/s", "FLOP"):
        return format_quantity(value, unit, 4)
    return f"{value:,.0f} {unit}" if value > 1e4 else f"{value:.4g} {unit}"


def test_the_table_of_the_readme_is_what_reproduce_prints() -> None:
    text = README.read_text(encoding="utf-8")
    shown = text.split(BEGIN)[1].split(END)[0]
    assert shown == published_table(), "run: python tests/test_readme.py"


def test_the_python_example_of_the_readme_runs(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    example = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(example[1], "README.md", "exec"), {})
    assert re.fullmatch(r"\d+\.\d\d s, MFU \d\d\.\d%\n", capsys.readouterr().out)
    assert (tmp_path / "step.json").stat().st_size > 0


def test_the_example_experiment_of_the_readme_runs(tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    file = tmp_path / "mine.toml"
    file.write_text(example[1], encoding="utf-8")
    result = run(Experiment.load(file))
    assert result.experiment["ranks"]["expert_load"]["correlation"] == 1.0
    assert result.experiment["plan"]["layout"].startswith("3d, ")


if __name__ == "__main__":
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    README.write_text(before + BEGIN + published_table() + END + rest.partition(END)[2], "utf-8")
