"""The wheel that people install is whole, and its command starts light."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGES = ("hwmodels", "workloads", "simulator", "kernels", "calibration")


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command that sees neither this checkout nor its environment; return its output."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST"))}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the sources, so that no older build can fill a gap in it."""
    folder = tmp_path_factory.mktemp("build")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, folder)
    for name in PACKAGES:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(CHECKOUT / name, folder / name, ignore=ignore)
    build = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "wheels", ".")
    run(*build, cwd=folder)
    (built,) = (folder / "wheels").glob("moesim-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean environment with the wheel in it; returns the folder of its commands.

    Dependencies are those of the running interpreter, by path. Their folder is searched last,
    and files in it that redirect imports (editable installs) are not read.
    """
    folder = tmp_path_factory.mktemp("installed") / "env"
    venv.create(folder)
    paths = sysconfig.get_paths("venv", {"base": str(folder), "platbase": str(folder)})
    commands = Path(paths["scripts"])
    pip = (sys.executable, "-m", "pip", "--python", commands / "python", "install")
    run(*pip, "--quiet", "--no-deps", "--no-index", "--no-compile", wheel, cwd=folder)
    ours = sysconfig.get_paths()
    libraries = dict.fromkeys([ours["purelib"], ours["platlib"]])
    (Path(paths["purelib"]) / "libraries.pth").write_text("\n".join(libraries), encoding="utf-8")
    return commands


def test_the_wheel_holds_every_file_of_every_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    written = {
        path.relative_to(CHECKOUT).as_posix()
        for package in PACKAGES
        for path in (CHECKOUT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == written


def test_the_licence_travels_with_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("/licenses/LICENSE")]
        assert archive.read(name) == (CHECKOUT / "LICENSE").read_bytes()


def test_the_installed_command_finds_its_presets(installed: Path, tmp_path: Path) -> None:
    """Away from the checkout; `import` must take the installed packages, not these sources."""
    where = "import simulator, hwmodels; print(simulator.__file__, hwmodels.__file__)"
    for file in run(installed / "python", "-c", where, cwd=tmp_path).split():
        assert Path(file).is_relative_to(installed.parent)
    words = run(installed / "moesim", "list", cwd=tmp_path).split()
    assert {"h800", "h800x8", "h800-2048-mpft", "deepseek-v3", "deepseek-v3-pretrain"} <= {*words}


def test_the_installed_kernels_find_their_table_of_choices(installed: Path, tmp_path: Path) -> None:
    """It is read at the first launch, which needs a GPU; here by the same function."""
    where = "from kernels._choices import FILE, table; table(FILE); print(FILE)"
    (file,) = run(installed / "python", "-c", where, cwd=tmp_path).split()
    assert Path(file).is_relative_to(installed.parent)


def test_help_loads_no_heavy_library() -> None:
    """So that it shows at once: the rest is loaded by the command that needs it."""
    heavy = "numpy scipy pandas matplotlib simpy networkx pydantic rich numba torch triton"
    heavy += " plotly jinja2"
    code = f"""
import atexit, sys
sys.argv = ["moesim", "--help"]
atexit.register(lambda: print("loaded:", *sorted(set("{heavy}".split()) & set(sys.modules))))
from simulator.cli import main
main()
"""
    words = run(sys.executable, "-c", code, cwd=CHECKOUT)
    assert words.startswith("Usage: moesim")
    assert words.splitlines()[-1] == "loaded:"
