"""Triton kernels that stand alone: the shapes, formats and algorithms DeepSeek-V3 runs.

One op a file: equation and layouts, kernel, `launch`, `reference` in plain torch,
`work(shape) -> (flops, bytes)`, `inputs(shape, device, seed)` (fresh random arguments of
`launch`), `SHAPES`, and `PROVIDERS`: functions with `launch`'s arguments, `moesim` being ours.
`CHECKED`, where it differs from `SHAPES`, are the shapes at which numbers can be compared, and
`TINY` is a ragged one that the interpreter runs in a moment.
`CONFIGS`, where there are any, are what a sweep on a GPU tries, and `choose` picks one for a shape:
the one that `choices.csv` says won on this device for the shape's class (`CLASSES`), and by
reasoning where nobody measured, which is everywhere yet. `ADAPT` turns our arguments into those of
another provider, once.

    from kernels import load
    op = load("fp8_gemm")
    out = op.launch(**op.inputs(op.SHAPES[0], "cuda"))

Importing asks no driver anything. Files whose name begins with `_` hold what several ops share.
"""

import difflib
import importlib
import pkgutil
from types import ModuleType

__all__ = ["load", "names"]


def names() -> tuple[str, ...]:
    """Return the names of all ops, one a file in this folder."""
    found = (info.name for info in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))


def load(name: str) -> ModuleType:
    """Return the module of one op.

    Raises:
        ValueError: no such op; names the nearest.
    """
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "known: " + ", ".join(known)
        raise ValueError(f"kernel {name!r}: unknown; {hint}")
    return importlib.import_module(f"{__name__}.{name}")
