"""The libraries `nccl-*`, `trtllm-*`, `sglang-*`, `vllm-*`: protocols fitted to timed collectives.

NCCL passes chunks round a ring by LL, LL128 or Simple, one set of constants for all-gather,
reduce-scatter and all-reduce; where the switch can add (Hopper and later) an all-reduce may be
done there (NVLS); all-to-all is pairwise. Start values are near those of NCCL's own tuning model
(NVIDIA/nccl src/graph/tuning.cc: latency of a ring step over NVLink 0.6 us LL, 1.9 us LL128,
3.4 us Simple). The all-reduces of serving frameworks are one-shot or two-shot, and large ones go
back to NCCL: under CUDA graphs its Simple ring and NVLS are taken over as they were fitted.

Eager launches wait for the host, which is no property of a link: they are fitted and scored here,
but no preset is made of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calibration.fit.profile_document import ProfileDocument, Sourced
from calibration.fit.protocols import Protocols, Way, fit_protocols, held_out_s, predict_s
from calibration.read.collective_rows import CollectiveRows, groups, read_collective_table
from hwmodels.arrays import Floats
from hwmodels.chip import CHIPS
from hwmodels.errors import CalibrationError
from hwmodels.protocols import Protocol

TABLES = "NVIDIA AIConfigurator tables (ai-dynamo/aiconfigurator @095f58a5)"
_RING_KINDS = ("all_gather", "reduce_scatter", "all_reduce")
_RING = (
    Way("LL", "ring", _RING_KINDS, {"launch_s": 4e-6, "step_s": 0.8e-6, "wire": 8.0}),
    Way("LL128", "ring", _RING_KINDS, {"launch_s": 5e-6, "step_s": 1.2e-6, "wire": 3.0}),
    Way(
        "Simple",
        "ring",
        _RING_KINDS,
        {"launch_s": 12e-6, "step_s": 2.5e-6, "wire": 1.3, "own": 0.4},
    ),
)
_PAIRWISE = (
    Way(
        "LL",
        "pairwise",
        ("all_to_all",),
        {"launch_s": 7e-6, "step_s": 0.2e-6, "wire": 4.0, "own": 30.0},
    ),
    Way(
        "Simple",
        "pairwise",
        ("all_to_all",),
        {"launch_s": 12e-6, "step_s": 1e-6, "wire": 1.5, "own": 0.3},
    ),
)
_NVLS = Way("NVLS", "in-network", ("all_reduce",), {"launch_s": 60e-6, "wire": 1.5})
_SHOTS = (
    Way("one-shot", "one-shot", ("all_reduce",), {"launch_s": 3e-6, "step_s": 5e-8, "wire": 1.6}),
    Way("two-shot", "two-shot", ("all_reduce",), {"launch_s": 3e-6, "step_s": 1e-7, "wire": 1.5}),
)
_EAGER_S = 17e-6  # start: what the host adds to every launch
_NAMES = {"nccl": "NCCL", "trtllm": "TensorRT-LLM", "sglang": "SGLang", "vllm": "vLLM"}


@dataclass(frozen=True, slots=True, eq=False)
class LibraryFit:
    """One library on one system.

    Attributes:
        library, system: a group of `calibration.read.collective_rows`.
        protocols: fitted, by kind.
        rows: what was fitted.
        nvlink_bytes_per_s: datasheet rate of the system's GPU, one direction.
        time_s: (rows,) by the protocols.
        held_out_s: (rows,) by fits that did not see the row's shape, None where not asked.
    """

    library: str
    system: str
    protocols: Protocols
    rows: CollectiveRows
    nvlink_bytes_per_s: float
    time_s: Floats
    held_out_s: Floats | None = None

    @property
    def name(self) -> str:
        """Name of its preset."""
        return f"{self.library}-{self.system}"

    @property
    def eager(self) -> bool:
        """Whether the host launched one by one."""
        return self.library.endswith("-eager")


def fit_collective_table(path: Path, held_out: bool = False) -> tuple[LibraryFit, ...]:
    """Fit every library of the table `collectives_intranode`.

    Args:
        held_out: predict every row, too, by a fit without its shape; takes five times as long.

    Raises:
        MachineError, CalibrationError: see `read_collective_table`.
        UnknownPresetError: a system is no chip preset.
    """
    found: dict[tuple[str, str], LibraryFit] = {}
    for library, system, rows in groups(read_collective_table(path)):
        chip = CHIPS.load(system)
        ways, known = _ways(library, chip.generation != "ampere"), None
        if library != "nccl" and not library.endswith("-eager"):
            if ("nccl", system) not in found:
                raise CalibrationError(f"{path}: {library} on {system} needs rows of nccl there")
            known = {"all_reduce": _large(found["nccl", system].protocols["all_reduce"])}
        rate = chip.nvlink_bytes_per_s
        protocols = fit_protocols(rows, ways, rate, known)
        found[library, system] = LibraryFit(
            library=library,
            system=system,
            protocols=protocols,
            rows=rows,
            nvlink_bytes_per_s=rate,
            time_s=predict_s(protocols, rows, rate),
            held_out_s=held_out_s(rows, ways, rate, known) if held_out else None,
        )
    return tuple(found.values())


def _large(protocols: Sequence[Protocol]) -> tuple[Protocol, ...]:
    """Return what large messages go back to."""
    return tuple(protocol for protocol in protocols if protocol.name in ("Simple", "NVLS"))


def _ways(library: str, switch_adds: bool) -> tuple[Way, ...]:
    """Return what is to be fitted of a library."""
    nvls = (_NVLS,) if switch_adds else ()
    if library == "nccl":
        return (*_RING, *nvls, *_PAIRWISE)
    if not library.endswith("-eager"):
        return _SHOTS
    large = (Way("Simple", "ring", ("all_reduce",), _RING[2].start), *nvls)
    return tuple(
        Way(
            way.name,
            way.algorithm,
            way.kinds,
            {**way.start, "launch_s": way.start["launch_s"] + _EAGER_S},
        )
        for way in (*_SHOTS, *large)
    )


def score_lines(fits: Sequence[LibraryFit]) -> list[str]:
    """Return median and 90th percentile of |relative error| by library, system and kind."""
    held_out = all(fit.held_out_s is not None for fit in fits)
    head = f"{'library':30}{'kind':16}{'rows':>6}{'median':>9}{'p90':>8}"
    lines = [head + (f"{'held out':>10}{'p90':>8}" if held_out else "")]
    lines += [
        _score(fit.name, kind, [(fit, fit.rows.kind == kind)], held_out)
        for fit in fits
        for kind in np.unique(fit.rows.kind).tolist()
    ]
    lines += [
        _score("all", kind, [(fit, fit.rows.kind == kind) for fit in fits], held_out)
        for kind in sorted({kind for fit in fits for kind in fit.rows.kind.tolist()})
    ]
    whole = [(fit, np.ones(len(fit.time_s), bool)) for fit in fits]
    return [*lines, _score("all", "all", whole, held_out)]


def errors(fits: Sequence[LibraryFit], held_out: bool = False) -> Floats:
    """Return |relative error| of all rows, of the fits or of those without the row's shape."""
    parts = []
    for fit in fits:
        time_s = fit.held_out_s if held_out else fit.time_s
        if time_s is None:
            raise CalibrationError(f"{fit.name}: was fitted without held-out predictions")
        parts.append(np.abs(time_s / fit.rows.time_s - 1))
    return np.concatenate(parts)


def _score(name: str, kind: str, parts: Sequence[tuple[LibraryFit, Floats]], held_out: bool) -> str:
    mask = np.concatenate([rows for _, rows in parts])
    fits = [fit for fit, _ in parts]
    line = f"{name:30}{kind:16}{mask.sum():6d}"
    for number in range(1 + held_out):
        median, p90 = np.percentile(errors(fits, bool(number))[mask], [50, 90])
        line += f"{median:{10 if number else 9}.1%}{p90:8.1%}"
    return line


def library_texts(fits: Sequence[LibraryFit]) -> Iterator[tuple[str, str]]:
    """Yield (name, TOML) of every library's preset, eager ones left out."""
    for fit in fits:
        if not fit.eager:
            yield fit.name, _text(fit)


def _text(fit: LibraryFit) -> str:
    name, nccl = _NAMES[fit.library.partition("-")[0]], fit.library == "nccl"
    versions = sorted(set(fit.rows.version.tolist()))
    what = "collectives of nccl-tests" if nccl else "all-reduce under CUDA graphs"
    document = ProfileDocument(
        f"{name} inside one NVLink node of {fit.system.upper()}. Written by\n"
        f"calibration.fit.collective_tables from timed collectives; do not edit, refit.",
        {
            "version": ", ".join(versions),
            "description": f"{name} {what}, {fit.system.upper()}, one switched node.",
            "link_nvlink_bytes_per_s": Sourced(
                fit.nvlink_bytes_per_s, f"datasheet rate, one direction, as in chip {fit.system}"
            ),
        },
    )
    kinds = sorted(fit.protocols)
    source = f"{TABLES}, {'nccl' if nccl else 'custom_allreduce'}, {name} {', '.join(versions)}"
    for kind in kinds:
        document.sources[f"protocols.{kind}"] = f"{source}, {_measured(fit, kind)}; fitted"
    if not nccl:
        document.sources["protocols.all_reduce"] += f"; Simple and NVLS as in nccl-{fit.system}"
    protocols = dict(fit.protocols)
    if nccl:
        protocols |= _implied(fit)
        document.assumed["protocols.broadcast"] = "not in the tables; constants of the ring"
        document.assumed["protocols.send_recv"] = (
            "not in the tables; the all-to-all of two ranks, without the copy of what stays"
        )
    document.tables["protocols"] = {
        kind: [_entry(protocol) for protocol in protocols[kind]] for kind in sorted(protocols)
    }
    return document.text()


def _measured(fit: LibraryFit, kind: str) -> str:
    """Say what rows of a kind there were."""
    rows = fit.rows.take(fit.rows.kind == kind)
    ranks = ", ".join(str(int(p)) for p in np.unique(rows.ranks))
    return f"{len(rows.time_s)} rows on {ranks} GPUs"


def _implied(fit: LibraryFit) -> Protocols:
    """Return kinds that NCCL has and nobody timed, from those that move bytes the same way."""
    ring = [each for each in fit.protocols["all_reduce"] if each.algorithm == "ring"]
    low, simple = fit.protocols["all_to_all"]
    # One block serves a peer, on its way to the link: the times of both add.
    block = 0.0 if low.own_bytes_per_s is None else fit.nvlink_bytes_per_s / low.own_bytes_per_s
    efficiency = 1 / (1 / low.nvlink_efficiency + block)
    return {
        "broadcast": tuple(each.model_copy(update={"own_bytes_per_s": None}) for each in ring),
        "send_recv": (
            low.model_copy(update={"nvlink_efficiency": efficiency, "own_bytes_per_s": None}),
            simple.model_copy(update={"own_bytes_per_s": None}),
        ),
    }


def _entry(protocol: Protocol) -> dict[str, object]:
    return protocol.model_dump(exclude_none=True)
