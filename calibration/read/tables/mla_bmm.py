"""AIConfigurator `mla_bmm`: products of every head that put queries into the latent, and back.

    mla_gen_pre    (tokens, 128) @ (128, 512) of each head
    mla_gen_post   (tokens, 512) @ (512, 128) of each head

In FP8 (block scales) the op quantises its activations too.
"""

import numpy as np

from calibration.read.mla_shapes import LATENT, NOPE, VALUE
from calibration.read.settings import WHERE, Columns, parts
from calibration.read.tables import Rows
from calibration.rows import KernelRows, sites

WORDS = (*WHERE, "bmm_dtype")
COLUMNS = frozenset((*WORDS, "op_name", "num_heads", "num_tokens", "latency_ms"))

SOURCE = "NVIDIA AIConfigurator tables (ai-dynamo/aiconfigurator @095f58a5), mla_bmm"
FAMILIES = {"bfloat16": "mla_absorb", "fp8": "mla_absorb_fp8_block"}


def rows(columns: Columns, source: str) -> Rows:
    """Return the kernels of a table: products of as many groups as heads.

    Raises:
        CalibrationError: a chip that is unknown, or no time.
    """
    found: Rows = []
    for part in parts(columns, WORDS, source):
        dtype, into = part.words["bmm_dtype"], part.columns["op_name"] == "mla_gen_pre"
        if dtype not in FAMILIES:
            found.append(part.unpriced())
            continue
        heads, tokens = part.sizes("num_heads", "num_tokens")
        found.append(
            KernelRows(
                setting=part.setting(),
                kind="gemm",
                family=FAMILIES[dtype],
                shape={
                    "m": heads * tokens,
                    "n": np.where(into, LATENT, VALUE).astype(np.float64),
                    "k": np.where(into, NOPE, LATENT).astype(np.float64),
                    "groups": heads,
                    "tensor_family": "fp8" if dtype == "fp8" else "bf16",
                    "element_bytes": 1.0 if dtype == "fp8" else 2.0,
                    "output_bytes": 2.0,
                },
                time_s=part.seconds(),
                site=sites(heads, tokens),
                size=tokens,
                source=source,
            )
        )
    return found
