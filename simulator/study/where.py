"""Conditions on the points of a study: `nics * rate <= 4e11`, `plan.pp * plan.ep <= cluster.gpus`.

Names are those of axes and of the experiment's fields; what is computed is arithmetic, comparisons
and a few functions of numbers (the library simpleeval; nothing else of Python is reachable).
"""

import ast
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from simpleeval import EvalWithCompoundTypes, InvalidExpression

from hwmodels.errors import SpecError, shown, suggestion
from simulator.experiment import Experiment

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": min, "max": max, "abs": abs, "round": round, "log2": math.log2,
}  # fmt: skip
LETTERS_MAX = 500


@dataclass(frozen=True)
class Conditions:
    """Conditions that all must hold."""

    texts: tuple[str, ...]

    @classmethod
    @lru_cache(maxsize=8)
    def of(cls, texts: tuple[str, ...]) -> "Conditions":
        """Return conditions.

        Raises:
            SpecError: one cannot be read.
        """
        for text in texts:
            if len(text) > LETTERS_MAX:
                raise SpecError(f"where {shown(text)}: must have at most {LETTERS_MAX} letters")
            try:
                ast.parse(text.strip(), mode="eval")
            except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
                why = getattr(error, "msg", str(error))
                raise SpecError(f"where {shown(text)}: must be an expression: {why}") from None
        return cls(texts)

    def check(self, axes: set[str], base: Experiment) -> None:
        """Refuse names that are neither axes nor fields.

        Raises:
            SpecError: names the first.
        """
        known = {*axes, *FUNCTIONS, *type(base).model_fields}
        for text in self.texts:
            for node in ast.walk(ast.parse(text.strip(), mode="eval")):
                if isinstance(node, ast.Name) and node.id not in known:
                    near = suggestion(node.id, axes | set(type(base).model_fields))
                    raise SpecError(f"where {shown(text)}: no axis or field {node.id!r}{near}")

    def hold(self, axes: Mapping[str, Any], experiment: Callable[[], Experiment]) -> bool:
        """Return whether all hold.

        Args:
            axes: what each shows.
            experiment: returns that of the point, asked only if a condition looks at its fields.

        Raises:
            InputError: there is no such experiment, or a condition cannot be computed.
        """
        if not self.texts:
            return True

        def named(node: ast.Name) -> Any:
            return axes[node.id] if node.id in axes else getattr(experiment(), node.id)

        for text in self.texts:
            try:
                if not EvalWithCompoundTypes(functions=FUNCTIONS, names=named).eval(text):
                    return False
            except (InvalidExpression, TypeError, ArithmeticError, AttributeError) as error:
                raise SpecError(f"where {shown(text)}: {error}") from None
        return True
