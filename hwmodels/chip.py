"""One accelerator: datasheet facts only. What is achieved of them belongs in a kernel profile."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from hwmodels.errors import SpecError, suggestion
from hwmodels.formats import FORMATS
from hwmodels.spec import Catalogue, Spec
from hwmodels.units import (
    Bytes,
    BytesPerClock,
    BytesPerSecond,
    FlopsPerSecond,
    Hertz,
    Parts,
    Watts,
)

Generation = Literal["ampere", "hopper", "blackwell"]


PROMOTED = 128
"""Elements of k after which partial sums of FP8 products go to FP32 registers of the CUDA cores on
today's tensor cores, whose accumulators have 13 fraction bits (arXiv 2412.19437 §3.3.2)."""
PROMOTED_BITS, FP32_BITS = 13, 23
MOST_PROMOTIONS = 4.0  # an instruction takes 32 elements at once


class Fp8Unit(Spec):
    """Abilities of the FP8 tensor cores that decide what block scaling costs (ISCA'25 §3.1), and
    what quantising and transposing do (arXiv 2412.19437 §3.5.2).

    Attributes:
        accumulation_mantissa_bits: fraction bits of the accumulator; see `promotions`.
        block_scaling: True where the tensor core applies block scales itself; otherwise CUDA
            cores do as they promote partial sums.
        casts_in_flight: True where formats change on the way from memory to shared memory, so that
            an operand is read in the format it lies there in and never written and read again.
        transposed_reads: True where tensor cores read FP8 operands from shared memory along either
            axis, so that none is written anew for its layout.
    """

    accumulation_mantissa_bits: Annotated[int, Field(ge=1, le=52)]
    block_scaling: bool
    casts_in_flight: bool = False
    transposed_reads: bool = False

    @property
    def promotions(self) -> float:
        """How often partial sums are promoted in `PROMOTED` elements of k: once today.

        Two things ask for it (ISCA'25 §3.1). Block scales on CUDA cores do once. A short
        accumulator does as often as its sums would else be off by more than today's: each addition
        drops what is below the last bit of the largest term, so that errors grow with the elements
        and halve with a bit. That one bit more holds twice the elements is derived, not measured.
        An accumulator of FP32's 23 bits gains nothing by promotion.
        """
        bits = self.accumulation_mantissa_bits
        for_sums = 0.0 if bits >= FP32_BITS else min(2.0 ** (PROMOTED_BITS - bits), MOST_PROMOTIONS)
        return for_sums if self.block_scaling else max(1.0, for_sums)


class ChipSpec(Spec):
    """A GPU.

    Attributes:
        sms: streaming multiprocessors enabled.
        peak_clock_hz: the clock at which the datasheet peaks hold:
            `peak = sms * clock * FLOPs per clock per SM`.
        tensor: dense peak FLOP/s by format family (`bf16`, `fp8`, `fp4`, `tf32`), sparsity off.
        vector_flops_per_s: FP32 CUDA-core peak; what promotes partial sums of FP8 products.
        hbm_capacity_bytes: as the driver reports it, more than the decimal GB of the label; driver
            and CUDA context keep some of it.
        hbm_bytes_per_s, l2_bytes: memory.
        shared_memory_bytes_per_clock: shared-memory bandwidth of one SM.
        mma_rows: rows of one tensor-core instruction (16 Ampere, 64 Hopper, 128 Blackwell).
        operand_tile: rows and columns of C for which a tensor core reads its operands from shared
            memory once.
        operand_sms: SMs that share one copy of the operand of the columns.
        nvlink_bytes_per_s: scale-up bandwidth of one GPU, one direction.
        exchange_engine: whether an engine of its own forwards, copies and sums what expert
            exchanges move, in place of SMs (ISCA'25 §4.4.2, DeepSeek-V3 report §3.5.1: a wish).
    """

    name: str
    generation: Generation
    sms: Parts
    peak_clock_hz: Hertz
    tensor: dict[str, FlopsPerSecond]
    vector_flops_per_s: FlopsPerSecond
    hbm_capacity_bytes: Bytes
    hbm_bytes_per_s: BytesPerSecond
    l2_bytes: Bytes
    shared_memory_bytes_per_clock: BytesPerClock = 128.0
    mma_rows: Literal[16, 64, 128]
    operand_tile: tuple[Parts, Parts]
    operand_sms: Parts
    nvlink_bytes_per_s: BytesPerSecond
    exchange_engine: bool = False
    tdp_w: Watts
    fp8_unit: Fp8Unit | None = None

    @model_validator(mode="after")
    def _bf16_is_the_yardstick(self) -> "ChipSpec":
        known = {number_format.family for number_format in FORMATS.values()}
        for family in self.tensor:
            if family not in known:
                raise ValueError(f"tensor: no format family {family!r}{suggestion(family, known)}")
        if "bf16" not in self.tensor:
            raise ValueError("tensor: needs a 'bf16' peak, the yardstick of MFU")
        return self

    def tensor_flops_per_s(self, family: str, sms: int | None = None) -> float:
        """Dense peak of `family` on `sms` of the chip's SMs (all of them by default).

        Raises:
            SpecError: the chip has no such tensor rate.
        """
        if family not in self.tensor:
            raise SpecError(
                f"chip {self.name}: no {family!r} tensor rate{suggestion(family, self.tensor)}"
            )
        return self.tensor[family] * ((self.sms if sms is None else sms) / self.sms)

    @property
    def promotions(self) -> float:
        """How often FP8 products promote partial sums, see `Fp8Unit.promotions`."""
        return 1.0 if self.fp8_unit is None else self.fp8_unit.promotions

    def flops_per_clock_per_sm(self, family: str) -> float:
        """Tensor FLOPs of one SM in one clock."""
        return self.tensor_flops_per_s(family) / (self.sms * self.peak_clock_hz)


CHIPS = Catalogue("chip", Path(__file__).parent / "presets" / "chips", ChipSpec)
