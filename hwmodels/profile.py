"""What kernels achieve on one chip with one library, and which library moves bytes between them."""

from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, model_validator

from hwmodels.costs.attention import AttentionParameters
from hwmodels.costs.exchange import Slowdown
from hwmodels.costs.gemm import GemmParameters
from hwmodels.costs.kernel import Parameters
from hwmodels.costs.memory_op import MemoryParameters
from hwmodels.errors import OutOfRangeError, suggestion
from hwmodels.library import LibrarySpec
from hwmodels.spec import Catalogue, Spec
from hwmodels.units import Seconds

P = TypeVar("P")


class KernelProfile(Spec):
    """Fitted parameters of the cost functions, keyed by kernel family.

    Attributes:
        name: name of the profile.
        chip: preset name of the chip it was measured on.
        library, version: kernels it describes; another version is another profile.
        description: one sentence.
        launch_gap_s: idle time between two kernels of one stream.
        gemm: by family: `fp8`, `fp8_grouped`, `fp8_wgrad`, `bf16`, `bf16_grouped`, `bf16_narrow`,
            `bf16_narrow_wgrad`.
        attention: `attention_forward`, `attention_backward`.
        memory: by family of memory-bound kernels (cast, transpose, permute ...).
        interference: by family, slowdown beside a communication kernel.
        communication: what its links achieve, a preset of kind `library`.
        errors: errors of the fit by name, as fractions: relative, time-weighted, held out.
    """

    name: str
    chip: str
    library: str
    version: str
    description: str = ""
    launch_gap_s: Seconds
    gemm: dict[str, GemmParameters]
    attention: dict[str, AttentionParameters]
    memory: dict[str, MemoryParameters]
    interference: dict[str, Slowdown]
    communication: LibrarySpec
    errors: dict[str, Annotated[float, Field(ge=-1, le=1e6)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _families_are_the_same_everywhere(self) -> "KernelProfile":
        priced = {*self.gemm, *self.attention, *self.memory}
        for family in sorted(priced ^ set(self.interference)):
            known = priced & set(self.interference)
            table = "kernels" if family in self.interference else "interference"
            raise ValueError(f"{table}: no family {family!r}{suggestion(family, known)}")
        return self

    def knows(self, family: str) -> bool:
        """Return whether it has parameters of a kernel family."""
        return family in self.interference

    def parameters(self, family: str) -> Parameters:
        """Return the parameters of a kernel family, whatever its kind.

        Raises:
            OutOfRangeError: the profile does not know it.
        """
        known: dict[str, Parameters] = {**self.gemm, **self.attention, **self.memory}
        return self._known("kernels", known, family)

    def interference_factor(self, family: str) -> float:
        """Return the slowdown of a family beside communication.

        Raises:
            OutOfRangeError: the profile does not know it.
        """
        return self._known("interference", self.interference, family)

    def _known(self, table: str, families: dict[str, P], family: str) -> P:
        if family not in families:
            near = suggestion(family, families)
            raise OutOfRangeError(f"profile {self.name}: {table}: no family {family!r}{near}")
        return families[family]


PROFILES = Catalogue("profile", Path(__file__).parent / "presets" / "profiles", KernelProfile)
