"""What kernels achieve on one chip with one library, and which library moves bytes between them.

A profile prices a kernel as

    seconds = cost(chip, constants, shape) * factor of the family * site factor * exp(residual)

The cost functions and their constants are `hwmodels.costs`; the factor is 1 unless the family
follows another by a stated ratio, and carries how far libraries and chips are known to differ; the
site factor is what the model does not know of one shape, drawn only where draws are asked for; the
residual is of the measured rows beside the profile, if it brings them.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from statistics import NormalDist
from typing import Annotated, Any, TypeVar

from pydantic import Field, model_validator

from hwmodels.arrays import Floats
from hwmodels.chip import CHIPS, ChipSpec
from hwmodels.costs.attention import AttentionParameters
from hwmodels.costs.decode_attention import DecodeAttentionParameters
from hwmodels.costs.exchange import Slowdown
from hwmodels.costs.fused_moe import FusedMoeParameters
from hwmodels.costs.gemm import GemmParameters
from hwmodels.costs.kernel import Parameters, kernel_features
from hwmodels.costs.memory_op import MemoryParameters
from hwmodels.document import Document
from hwmodels.errors import OutOfRangeError, suggestion
from hwmodels.library import LibrarySpec
from hwmodels.measured_rows import MeasuredFamily, read_rows, residual_of
from hwmodels.spec import Catalogue, Spec
from hwmodels.units import Ratio, Seconds, Seed

P = TypeVar("P")

Size = Annotated[float, Field(ge=0, le=1e18)]
Range = tuple[Size, Size]
"""Least and largest value measured."""

Spread = Annotated[float, Field(ge=0, le=2)]
"""Standard deviation of a logarithm."""


class KernelProfile(Spec):
    """Fitted parameters of the cost functions, keyed by kernel family.

    Attributes:
        name: name of the profile.
        chip: preset name of the chip it was measured on.
        library, version: kernels it describes; another version is another profile.
        clock: how the chip was clocked while they were timed.
        description: one sentence.
        launch_gap_s: idle time between two kernels of one stream.
        gemm: by family, as `workloads.ops.Gemm` names them: `bf16`, `fp8_block_grouped` ...
        attention: of training and prefill: `attention_forward`, `attention_backward`,
            `mla_prefill`, `gqa_context` ...
        decode_attention: `mla_decode`, `gqa_decode` ...
        fused_moe: experts of a rank as one module: `moe_bf16` ...
        memory_op: by family of memory-bound kernels (cast, transpose, permute ...).
        factor: by family, seconds over what its constants give; 1 where it is not in the table.
        site_spread: by family, how far single shapes are from the model: the standard deviation of
            the logarithm of a factor that each shape has for itself.
        site_seed: of those factors; without it they are 1.
        transferred: by family, what its constants were taken from; measured families are not in it.
        envelope: by family, the sizes measured: least and largest by keyword of the cost function.
        interference: by family, slowdown beside a communication kernel.
        communication: what its links achieve, a preset of kind `library`.
        measured: CSV file of measured rows that correct its prices; the one beside a profile's own
            file is found by itself.
        errors: errors of the fit by name, as fractions: relative, time-weighted, held out.
    """

    name: str
    chip: str
    library: str
    version: str
    clock: str = ""
    description: str = ""
    launch_gap_s: Seconds
    gemm: dict[str, GemmParameters] = Field(default_factory=dict)
    attention: dict[str, AttentionParameters] = Field(default_factory=dict)
    decode_attention: dict[str, DecodeAttentionParameters] = Field(default_factory=dict)
    fused_moe: dict[str, FusedMoeParameters] = Field(default_factory=dict)
    memory_op: dict[str, MemoryParameters] = Field(default_factory=dict)
    factor: dict[str, Ratio] = Field(default_factory=dict)
    site_spread: dict[str, Spread] = Field(default_factory=dict)
    site_seed: Seed | None = None
    transferred: dict[str, str] = Field(default_factory=dict)
    envelope: dict[str, dict[str, Range]] = Field(default_factory=dict)
    interference: dict[str, Slowdown]
    communication: LibrarySpec
    measured: str | None = None
    errors: dict[str, Annotated[float, Field(ge=-1, le=1e6)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _families_are_the_same_everywhere(self) -> "KernelProfile":
        priced = set(self.families())
        for family in sorted(priced ^ set(self.interference)):
            known = priced & set(self.interference)
            table = "kernels" if family in self.interference else "interference"
            raise ValueError(f"{table}: no family {family!r}{suggestion(family, known)}")
        for name in ("factor", "site_spread", "transferred", "envelope"):
            for family in sorted(set(getattr(self, name)) - priced):
                raise ValueError(f"{name}: no family {family!r}{suggestion(family, priced)}")
        return self

    def tables(self) -> dict[str, Mapping[str, Parameters]]:
        """Return the tables of kernel families by kind, a module of `hwmodels.costs` each."""
        names = ("gemm", "attention", "decode_attention", "fused_moe", "memory_op")
        return {name: getattr(self, name) for name in names}

    def families(self) -> dict[str, Parameters]:
        """Return the parameters of every kernel family, whatever its kind."""
        return {name: found for table in self.tables().values() for name, found in table.items()}

    def knows(self, family: str) -> bool:
        """Return whether it has parameters of a kernel family."""
        return family in self.interference

    def parameters(self, family: str) -> Parameters:
        """Return the parameters of a kernel family, whatever its kind.

        Raises:
            OutOfRangeError: the profile does not know it.
        """
        for table in self.tables().values():
            if family in table:
                return table[family]
        return self._known("kernels", self.families(), family)

    def fitted_sizes(self, family: str) -> Mapping[str, Range]:
        """Return the sizes that the constants of a family were fitted to: its own, or those of the
        family they were taken from; empty where the profile does not say.
        """
        leader = self.transferred.get(family, family)
        return self.envelope.get(family) or self.envelope.get(leader, {})

    def interference_factor(self, family: str) -> float:
        """Return the slowdown of a family beside communication.

        Raises:
            OutOfRangeError: the profile does not know it.
        """
        return self._known("interference", self.interference, family)

    def chance_factor(self, spread: float, name: str) -> float:
        """Return a factor with this spread of its logarithm, drawn by `site_seed`; 1 without it.

        Args:
            name: of what is not known: one name has one factor, whatever else is priced.
        """
        if self.site_seed is None or not spread:
            return 1.0
        digest = hashlib.blake2b(f"{self.site_seed} {name}".encode(), digest_size=6).digest()
        return math.exp(spread * NormalDist().inv_cdf((int.from_bytes(digest) + 0.5) / 2**48))

    def residual_factor(self, family: str, shape: Mapping[str, Any]) -> Floats | None:
        """Return (rows,) what the rows beside it add to prices of a family; None of no rows.

        Args:
            shape: keywords of the family's cost function, (rows,) columns or what is alike in all.

        Raises:
            SpecError: the rows cannot be read.
        """
        if self.measured is None:
            return None
        found = _residuals(self.measured).get(family)
        return None if found is None else found(shape)

    def _known(self, table: str, families: dict[str, P], family: str) -> P:
        if family not in families:
            near = suggestion(family, families)
            raise OutOfRangeError(f"profile {self.name}: {table}: no family {family!r}{near}")
        return families[family]


class _Profiles(Catalogue[KernelProfile]):
    """Presets of profiles; one that is a file brings the rows that lie beside it."""

    def document(self, name: str) -> Document:
        document = super().document(name)
        rows = Path(name).with_suffix(".csv")
        if str(name).endswith(".toml") and rows.is_file():
            document.values["measured"] = str(rows)
        return document


PROFILES = _Profiles("profile", Path(__file__).parent / "presets" / "profiles", KernelProfile)


@lru_cache(maxsize=8)
def _residuals(path: str) -> dict[str, Callable[[Mapping[str, Any]], Floats]]:
    """Return what the rows of a file add, by family, to prices of the profile they lie beside."""
    profile = PROFILES.load(str(Path(path).with_suffix(".toml")))
    chip = CHIPS.load(profile.chip)
    return {
        family: _factor(chip, profile.parameters(family), rows)
        for family, rows in read_rows(Path(path)).items()
    }


def _factor(
    chip: ChipSpec, parameters: Parameters, rows: MeasuredFamily
) -> Callable[[Mapping[str, Any]], Floats]:
    residual = residual_of(chip, parameters, rows)
    return lambda shape: residual.factor(kernel_features(chip, parameters, shape))
