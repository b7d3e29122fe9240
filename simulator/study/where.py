"""Conditions on the points of a study: `nics * rate <= 4e11`, `plan.pp * plan.ep <= cluster.gpus`.

Names are those of axes and of the experiment's fields; what is computed is arithmetic, comparisons
and a few functions of numbers. Whatever else Python has is refused before anything is computed; the
library simpleeval computes the rest.
"""

import ast
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from simpleeval import DEFAULT_OPERATORS, EvalWithCompoundTypes, InvalidExpression

from hwmodels.errors import InfeasibleError, InputError, SpecError, shown, suggestion
from simulator.experiment import Experiment

LETTERS_MAX = 500


def _rounded(number: float) -> int:
    """Return the nearest whole number; to digits, a whole number might not end."""
    return round(number)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": min, "max": max, "abs": abs, "round": _rounded, "log2": math.log2,
}  # fmt: skip


def _rest(left: float, right: float) -> float:
    """Return what a division leaves; of texts, `%` would be another thing."""
    if isinstance(left, str):
        raise TypeError("% takes numbers")
    return left % right


# `math.pow` has an end where whole numbers have none.
OPERATORS = DEFAULT_OPERATORS | {ast.Mod: _rest, ast.Pow: math.pow}

ALLOWED = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.UAdd,
    ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow,
    ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn,
    ast.Name, ast.Attribute, ast.Load, ast.Constant, ast.List, ast.Tuple, ast.Call,
)  # fmt: skip


@dataclass(frozen=True)
class Conditions:
    """Conditions that all must hold.

    Attributes:
        texts: as given; `trees`: as read.
    """

    texts: tuple[str, ...]
    trees: tuple[ast.Expression, ...]

    @classmethod
    @lru_cache(maxsize=8)
    def of(cls, texts: tuple[str, ...]) -> "Conditions":
        """Return conditions.

        Raises:
            SpecError: one cannot be read.
        """
        return cls(texts, tuple(map(_read, texts)))

    def check(self, axes: Mapping[str, Any], base: Experiment) -> None:
        """Refuse names that are neither axes nor fields, and what can be computed at no point.

        Args:
            axes: what each shows at some point.

        Raises:
            SpecError: names the first.
        """
        fields = set(type(base).model_fields)
        for text, tree in zip(self.texts, self.trees, strict=True):
            called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
            for node in ast.walk(tree):
                if not isinstance(node, ast.Name) or id(node) in called:
                    continue
                if node.id not in axes and node.id not in fields:
                    near = suggestion(node.id, axes.keys() | fields)
                    raise SpecError(f"where {shown(text)}: no axis or field {node.id!r}{near}")
            try:
                _holds(text, tree, axes, lambda: base)
            except InfeasibleError:
                continue  # at other points it may be computed

    def hold(self, axes: Mapping[str, Any], experiment: Callable[[], Experiment]) -> bool:
        """Return whether all hold.

        Args:
            axes: what each shows.
            experiment: returns that of the point, asked only if a condition looks at its fields.

        Raises:
            InputError: there is no such experiment, or a condition cannot be computed.
        """
        both = zip(self.texts, self.trees, strict=True)
        return all(_holds(text, tree, axes, experiment) for text, tree in both)


def _read(text: str) -> ast.Expression:
    if len(text) > LETTERS_MAX:
        raise SpecError(f"where {shown(text)}: must have at most {LETTERS_MAX} letters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what Python finds odd
            tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        why = getattr(error, "msg", str(error))
        raise SpecError(f"where {shown(text)}: must be an expression: {why}") from None
    for node in ast.walk(tree):
        if why := _refused(node):
            raise SpecError(f"where {shown(text)}: {why}")
    return tree


def _refused(node: ast.AST) -> str:
    """Return why something may not stand in a condition; empty where it may."""
    if not isinstance(node, ALLOWED):
        kind = type(node).__name__
        return f"must be arithmetic, comparisons, and, or, not; got Python's {kind}"
    if isinstance(node, ast.Call):
        is_known = isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS
        if not is_known or node.keywords:
            return f"functions are {', '.join(FUNCTIONS)}, of numbers"
    if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
        return f"no field {node.attr!r}"
    return ""


def _holds(
    text: str, tree: ast.Expression, axes: Mapping[str, Any], experiment: Callable[[], Experiment]
) -> bool:
    def named(node: ast.Name) -> Any:
        return axes[node.id] if node.id in axes else getattr(experiment(), node.id)

    computes = EvalWithCompoundTypes(operators=OPERATORS, functions=dict(FUNCTIONS), names=named)
    try:
        found = computes.eval(text, previously_parsed=tree.body)
    except InputError:  # of the experiment
        raise
    except (ArithmeticError, ValueError) as error:
        raise InfeasibleError(f"where {shown(text)}: cannot be computed: {error}") from None
    except (InvalidExpression, TypeError, AttributeError) as error:
        raise SpecError(f"where {shown(text)}: {error}") from None
    if callable(found):
        raise SpecError(f"where {shown(text)}: must be true or false, got a function")
    return bool(found)
