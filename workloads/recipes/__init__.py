"""Precision recipes, one a file: what surrounds the products of a layer, and what is kept of it.

A block is its equations: it names its linears and what lies between them. A recipe writes the
casts and transposes around each, what waits for the backward pass in which format and what is
computed again there, what goes over the wire, and the bytes of a parameter. A subclass of `Recipe`
in a module of this package is found at import and listed in `RECIPES`; `precision.recipe` names it.

Passes: F forward, B gradient of the inputs, W gradient of the weights.
"""

import importlib
import math
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum, auto
from inspect import isabstract
from typing import ClassVar, Literal, NamedTuple

from hwmodels.errors import SpecError, suggestion
from hwmodels.formats import NumberFormat
from workloads.ops import Comm, Gemm, MemoryOp, Op, Work

Phase = Literal["F", "B", "W"]
BF16_BYTES = 2


@dataclass(frozen=True, slots=True)
class Passes:
    """The work of a block, by pass, in launch order: kernels, and communication among them.

    `a + b` runs b after a, and their backward passes the other way round.

    Attributes:
        saved_bytes: activations kept from the forward to the backward pass.
        routed_bytes: of these, what grows with the load of a rank's experts. Left out, it is all
            that work keeps whose forward kernels meet that load.
    """

    forward: tuple[Work, ...] = ()
    backward: tuple[Work, ...] = ()
    weight: tuple[Op, ...] = ()
    saved_bytes: float = 0.0
    routed_bytes: float = math.nan

    def __post_init__(self) -> None:
        if math.isnan(self.routed_bytes):
            routed = bool(self.forward) and all(work.routed for work in self.forward)
            object.__setattr__(self, "routed_bytes", self.saved_bytes if routed else 0.0)

    def __add__(self, later: "Passes") -> "Passes":
        return Passes(
            self.forward + later.forward,
            later.backward + self.backward,
            later.weight + self.weight,
            self.saved_bytes + later.saved_bytes,
            self.routed_bytes + later.routed_bytes,
        )

    def of(self, phase: Phase) -> tuple[Work, ...]:
        """Return the work of one pass."""
        return {"F": self.forward, "B": self.backward, "W": self.weight}[phase]


class Operand(Enum):
    """How a tensor comes to a product.

    `WIDE`: in BF16, long enough to stream. `NARROW`: likewise, but a latent, too short to stream.
    `QUANTISED`: in the format of products already, as it came over the wire. `READY`: and whoever
    made it has written it in the layout of the weight gradient too.
    """

    WIDE = auto()
    NARROW = auto()
    QUANTISED = auto()
    READY = auto()


class Abilities(NamedTuple):
    """What the unit that multiplies spares the kernels around its products.

    Attributes:
        casts_in_flight: formats change on the way from memory to the unit: an operand is read as it
            lies there.
        transposed_reads: the unit reads operands along either axis.
    """

    casts_in_flight: bool = False
    transposed_reads: bool = False


NO_ABILITIES = Abilities()


@dataclass(frozen=True, slots=True)
class ParameterBytes:
    """Bytes of one parameter in memory.

    Attributes:
        weight, gradient: of every parameter on every rank that holds it.
        states: of the optimizer, master weight included; sharded over the replicas by ZeRO-1.
        copies: name of a memory term and bytes, of weights that products read in another format;
            embedding, head and final norm have none.
    """

    weight: float
    gradient: float
    states: float
    copies: tuple[tuple[str, float], ...] = ()

    @property
    def swept(self) -> float:
        """What an update of one parameter reads and writes."""
        return (self.gradient + self.states) + (self.states + self.weight)


class Recipe(ABC):
    """Number formats of a training step, and the kernels that they cost.

    Attributes:
        name: in `precision.recipe`.
        format: of the operands of its linears.
        recomputes: whether norms, up-projections of latents and activations are computed again on
            the way back (arXiv 2412.19437 §3.2.3), instead of kept.
        dispatches: formats that dispatched tokens may have on the wire; the first is its own.
        parameter: bytes of one.
    """

    name: ClassVar[str]
    format: ClassVar[NumberFormat]
    recomputes: ClassVar[bool]
    dispatches: ClassVar[tuple[str, ...]]
    parameter: ClassVar[ParameterBytes]

    def able(self, abilities: Abilities) -> "Recipe":
        """Return the recipe on a unit with these abilities: this one, if it has no use for them."""
        return self

    @property
    def asked_for(self) -> Operand:
        """How a tensor that a block asked a `cast` of comes to its products."""
        return Operand.QUANTISED

    @property
    def kept(self) -> NumberFormat:
        """Format in which an operand waits for its weight gradient."""
        return self.format

    @abstractmethod
    def cast(
        self, name: str, rows: int, width: int, operand: Operand = Operand.WIDE
    ) -> tuple[Op, ...]:
        """Return what brings a (rows, width) tensor into the format of products, row by row."""

    @abstractmethod
    def linear(
        self,
        name: str,
        rows: int,
        n: int,
        k: int,
        x: Operand = Operand.WIDE,
        dy: Operand = Operand.WIDE,
    ) -> Passes:
        """Return a linear from `k` to `n` columns. Its input is kept by whoever made it.

        Args:
            x, dy: how its input, and the gradient of its output, come to it.
        """

    @abstractmethod
    def routed_linear(
        self,
        name: str,
        rows: int,
        n: int,
        k: int,
        experts: int,
        x: Operand = Operand.WIDE,
        dy: Operand = Operand.WIDE,
    ) -> Passes:
        """Return the linears of `experts` experts that share `rows` routed rows, likewise."""

    @abstractmethod
    def swiglu(self, name: str, rows: int, width: int, *, routed: bool = False) -> Passes:
        """Return `silu(gate) * up` from 2 width to width columns, ready for the next product.

        Routed rows are weighted by what their router gave, which has a gradient too.
        """

    @abstractmethod
    def attention_output(self, rows: int, width: int) -> Passes:
        """Return what keeps the output of an attention core for the backward pass."""

    @abstractmethod
    def scale_transposes(
        self, forward: int = 0, backward: int = 0, operand: Operand = Operand.QUANTISED
    ) -> Passes:
        """Return as many small kernels that bring the scales of operands into order.

        Args:
            operand: how these came.
        """

    @abstractmethod
    def weight_casts(self, parameters: float) -> tuple[MemoryOp, ...]:
        """Return what writes the copies of updated weights that products read."""

    def products(
        self, name: str, rows: int, n: int, k: int, groups: int = 1, *, routed: bool = False
    ) -> Passes:
        """Return the three products of a linear and nothing around them."""
        of = self.format
        return Passes(
            (Gemm(name, rows, n, k, of, "fprop", groups, routed),),
            (Gemm(f"{name} dgrad", rows, k, n, of, "dgrad", groups, routed),),
            (Gemm(f"{name} wgrad", k, n, rows, of, "wgrad", groups, routed),),
        )

    def norm(self, name: str, rows: int, width: int) -> Passes:
        """Return an RMSNorm of the residual stream, fused with the addition before it.

        Its input is kept; of what it gives, `again` says.
        """
        size = rows * width
        return Passes(
            (MemoryOp(f"add + rmsnorm ({name})", "add_norm", size * 8),),
            (
                MemoryOp(f"add dX ({name})", "elementwise", size * 6),
                MemoryOp(f"rmsnorm backward ({name})", "norm_backward", size * 10, launches=3),
            ),
            saved_bytes=size * BF16_BYTES,
        )

    def again(self, forward: Iterable[Work], kept_bytes: float) -> Passes:
        """Return what gives the backward pass the results of `forward`: they are computed again
        there or were kept, at `kept_bytes`.
        """
        if not self.recomputes:
            return Passes(saved_bytes=kept_bytes)
        kernels = (op for op in forward if not isinstance(op, Comm))
        return Passes(backward=tuple(replace(op, name=f"{op.name} again") for op in kernels))


def _discover() -> dict[str, Recipe]:
    """Import every sibling and collect the recipes they define."""
    for entry in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{entry.name}")
    found: dict[str, Recipe] = {}
    kinds = list(Recipe.__subclasses__())
    for kind in kinds:
        kinds += kind.__subclasses__()
        if isabstract(kind):
            continue
        if kind.name in found:
            raise TypeError(f"{kind.__name__}: recipe {kind.name!r} exists twice")
        found[kind.name] = kind()
    return found


RECIPES: dict[str, Recipe] = _discover()


def recipe(name: str) -> Recipe:
    """Return the recipe called `name`.

    Raises:
        SpecError: no such recipe.
    """
    if name not in RECIPES:
        raise SpecError(f"precision.recipe: {name!r} is unknown{suggestion(name, RECIPES)}")
    return RECIPES[name]
