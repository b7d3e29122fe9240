"""The table of choices: who is asked first, on which device, for which class of shapes."""

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels import _choices
from kernels._choices import ALL, COLUMNS, class_of, classes, names_of, read_choices, shape_class

HEADER = ",".join(COLUMNS)
DEVICE = "a device under test"


def table_of(path: Path, *rows: tuple[str, ...]) -> Path:
    """A table with some kernels, classes and configurations, measured on DEVICE."""
    quoted = [
        (kernel, f'"{class_}"', '"' + config.replace('"', '""') + '"')
        for kernel, class_, config in rows
    ]
    tail = f"0.001,0.002,{DEVICE},3.6.0,2026-01-01"
    path.write_text("\n".join([HEADER, *(f"{','.join(r)},{tail}" for r in quoted), ""]), "utf-8")
    return path


BOUNDS = st.lists(st.integers(1, 50), max_size=3, unique=True).map(lambda b: tuple(sorted(b)))


@given(
    st.dictionaries(st.sampled_from(["m", "n", "m/n"]), BOUNDS.filter(bool)),
    st.integers(0, 60),
    st.integers(1, 60),
)
def test_each_shape_is_in_the_one_class_whose_name_holds_for_it(by, m: int, n: int) -> None:
    """Names are conditions: the one that is true of the sizes is the class, the others are not."""
    names = [name for name in names_of(by) if name != ALL]
    true = [name for name in names if eval(name, {}, {"m": m, "n": n})]
    assert true == ([class_of(by, {"m": m, "n": n})] if by else [])
    assert class_of({}, {"m": m}) == ALL


def test_groups_have_the_rows_of_their_buffer() -> None:
    """128 a masked group of 64; a contiguous one only its own padding."""
    shape = {"counts": [64, 0, 1, 5], "n": 8, "k": 8}
    assert shape_class("grouped_gemm", {**shape, "masked": 1}) == "rows/groups<=128"
    assert _choices.sizes({**shape, "masked": 1})["rows"] == 512
    assert _choices.sizes({**shape, "masked": 0})["rows"] == 384
    assert shape_class("fp8_wgrad", {"counts": [7, 0], "m": 1, "n": 1}) == "groups>1"


def test_a_shape_of_another_kernel_and_an_unknown_kernel_are_refused() -> None:
    with pytest.raises(ValueError, match=r"fp8_gemm: shape .* has no size 'm'"):
        shape_class("fp8_gemm", {"tokens": 3})
    with pytest.raises(ValueError, match="kernel 'fp9_gemm': unknown"):
        shape_class("fp9_gemm", {"m": 3})
    assert shape_class("moe_map", {"tokens": 3}) == ALL


GOOD = 'fp8_gemm,m<=64,"{""warps"":4}",1e-3,2e-3,A GPU,3.6.0,2026-01-01'


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "the columns must be kernel,class,config"),
        ("kernel,class\n", 1, "the columns must be"),
        (f"{HEADER}\n{GOOD}\n\n", 3, "8 cells are needed"),
        (f"{HEADER}\n{GOOD},more\n", 2, "8 cells are needed"),
        (f"{HEADER}\n{GOOD.replace('A GPU', '')}\n", 2, "none empty"),
        (f"{HEADER}\n{GOOD.replace('{', '[')}\n", 2, "config must be a JSON object"),
        (f"{HEADER}\n{GOOD.replace('1e-3', 'fast')}\n", 2, "seconds above 0, got 'fast'"),
        (f"{HEADER}\n{GOOD.replace('2e-3', 'nan')}\n", 2, "seconds above 0, got 'nan'"),
        (f"{HEADER}\n{GOOD.replace('2e-3', '0')}\n", 2, "seconds above 0, got '0'"),
        (f"{HEADER}\n{GOOD}\n{GOOD}\n", 3, "a second row of fp8_gemm, m<=64, A GPU"),
    ],
)
def test_a_malformed_table_is_refused_by_file_and_line(tmp_path, text, line, message) -> None:
    path = tmp_path / "choices.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"choices\.csv:{line}: .*{message}") as caught:
        read_choices(path)
    assert "\n" not in str(caught.value)


def torch_kernels() -> SimpleNamespace:
    """What tests of real launches need; without PyTorch and Triton they skip."""
    pytest.importorskip("triton", reason="needs PyTorch and Triton")
    torch = pytest.importorskip("torch", reason="needs PyTorch and Triton")
    from kernels import _device, load, names

    return SimpleNamespace(torch=torch, device=_device, load=load, names=names)


def kernels_with_a_choice() -> list[str]:
    """Names of kernels whose file declares configurations; read as text, for it may be unrunnable
    here."""
    folder = Path(_choices.__file__).parent
    return sorted(
        p.stem for p in folder.glob("[a-z]*.py") if "\nCONFIGS = " in p.read_text("utf-8")
    )


class AskedError(Exception):
    """Ends a launch at its question; `sizes` and `device` are what it asked with."""

    def __init__(self, *sizes: int, device: object = None) -> None:
        self.sizes, self.device = sizes, device


@pytest.fixture(params=kernels_with_a_choice())
def asked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """A kernel, its own `choose`, and what the launch of each of its shapes asks it, on `meta`."""
    here = torch_kernels()
    module = here.load(request.param)
    forward = here.load("mla_prefill")  # makes inputs of its backward pass

    def outputs_only(q, k, v):
        lse = here.torch.empty(q.shape[0], q.shape[2], q.shape[1], device="meta")
        return here.torch.empty_like(v), lse

    args = {}
    with monkeypatch.context() as patch:
        if request.param != "mla_prefill":
            patch.setattr(forward, "launch", outputs_only)
        for shape in module.SHAPES:
            args[json.dumps(shape)] = module.inputs(shape, here.torch.device("meta"))
    choose, questions = module.choose, []

    def ask(*sizes, device=None):
        raise AskedError(*sizes, device=device)

    with monkeypatch.context() as patch:
        patch.setattr(module, "choose", ask)
        for shape in module.SHAPES:
            with pytest.raises(AskedError) as caught:
                module.launch(**args[json.dumps(shape)])
            assert caught.value.device.type == "meta"
            questions.append((shape, caught.value.sizes))
    return SimpleNamespace(
        name=request.param, module=module, choose=choose, questions=questions, here=here
    )


def test_every_kernel_with_configurations_is_tested_here() -> None:
    here = torch_kernels()
    with_configs = [name for name in here.names() if hasattr(here.load(name), "CONFIGS")]
    assert with_configs == kernels_with_a_choice()
    assert len(with_configs) > 10
    for name in here.names():
        assert classes(name) == getattr(here.load(name), "CLASSES", {}), name


def test_without_a_row_every_shape_gets_what_is_reasoned(
    asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_choices, "FILE", table_of(tmp_path / "empty.csv"))
    monkeypatch.setattr(asked.here.device, "OFF_GPU_NAME", DEVICE)
    meta = asked.here.torch.device("meta")
    for shape, sizes in asked.questions:
        reasoned = asked.choose.__wrapped__(*sizes)
        assert asked.choose(*sizes) == reasoned, shape
        assert asked.choose(*sizes, device=meta) == reasoned, shape


def test_a_row_decides_for_its_class_on_its_device_only(
    asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The class that a shape has without PyTorch is the one that its launch asks for."""
    other = next(
        c for c in asked.module.CONFIGS if c != asked.module.choose(*asked.questions[0][1])
    )
    meta, first = asked.here.torch.device("meta"), shape_class(asked.name, asked.questions[0][0])
    path = table_of(tmp_path / "one.csv", (asked.name, first, json.dumps(asdict(other))))
    monkeypatch.setattr(_choices, "FILE", path)
    for name in (DEVICE, "another device"):
        monkeypatch.setattr(asked.here.device, "OFF_GPU_NAME", name)
        for shape, sizes in asked.questions:
            here = name == DEVICE and shape_class(asked.name, shape) == first
            want = other if here else asked.choose.__wrapped__(*sizes)
            assert asked.choose(*sizes, device=meta) == want, shape
            assert asked.choose(*sizes) == asked.choose.__wrapped__(*sizes), shape


def test_a_configuration_with_an_unknown_field_is_refused_by_file_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = torch_kernels()
    path = table_of(tmp_path / "odd.csv", ("rope", "heads<=1", '{"rows":64,"magic":1}'))
    monkeypatch.setattr(_choices, "FILE", path)
    monkeypatch.setattr(here.device, "OFF_GPU_NAME", DEVICE)
    with pytest.raises(ValueError, match=r"odd\.csv:2: rope: config .*'magic'"):
        here.load("rope").choose(1, device=here.torch.device("meta"))


def test_who_compiles_for_a_device_elsewhere_chooses_as_on_it() -> None:
    here = torch_kernels()
    from calibration.measure.ahead import compiling

    meta = here.torch.device("meta")
    assert here.device.device_name(meta) == ""
    with compiling(device=DEVICE):
        assert here.device.device_name(meta) == DEVICE
    assert here.device.device_name(meta) == ""


def dead_rows(path: Path) -> list[str]:
    """Rows that no launch can ever ask for, or whose configuration its kernel cannot take."""
    here, dead = torch_kernels(), []
    for choice in read_choices(path).values():
        alive = choice.kernel in kernels_with_a_choice() and choice.shape_class in names_of(
            classes(choice.kernel)
        )
        if not alive:
            dead.append(f"{choice.where}: no launch asks for {choice.kernel} {choice.shape_class}")
        else:
            choice.configuration(here.load(choice.kernel).Config)
    return dead


def test_every_row_of_our_table_is_alive(tmp_path: Path) -> None:
    rows = ("rope", "heads<=1", "{}"), ("rope", "heads<=2", "{}"), ("roape", ALL, "{}")
    assert [line.split(": ")[1] for line in dead_rows(table_of(tmp_path / "t.csv", *rows))] == [
        "no launch asks for rope heads<=2",
        "no launch asks for roape all",
    ]
    assert not dead_rows(_choices.FILE)


def test_a_sweep_decides_every_class_that_priced_ops_are_in() -> None:
    """A class without a shape of the kernel's own would stay as reasoned, whatever is measured."""
    load = torch_kernels().load
    from calibration.gpu_day.sizes import OPS
    from calibration.measure.measurement import read_plan

    ours = [point for point in read_plan(OPS) if hasattr(load(point.kernel), "CONFIGS")]
    met = {(point.kernel, shape_class(point.kernel, point.shape)) for point in ours}
    shapes = {kernel: load(kernel).SHAPES for kernel, _ in met}
    swept = {(kernel, shape_class(kernel, s)) for kernel, own in shapes.items() for s in own}
    assert len(shapes) > 10
    assert met <= swept
