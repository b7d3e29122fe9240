"""Writing profiles: what is written is what is read, and the same input gives the same bytes."""

import tomllib

from calibration.fit.profile_document import ProfileDocument, Sourced, rounded

DOCUMENT = ProfileDocument(
    "two\nlines",
    {"chip": "h800", "launch_gap_s": Sourced(1.23456e-6, 'a "quoted" source', p10=1e-6, p90=2e-6)},
    {"gemm.fp8": {"tile": (128, 64), "split_k": True}, "errors": {"with space": 3}},
    {"gemm.fp8": "trace", "errors": "score"},
    {"gemm.fp8.split_k": "why"},
)


def test_a_document_reads_back() -> None:
    values = tomllib.loads(DOCUMENT.text())
    assert values["launch_gap_s"] == {
        "value": 1.235e-6,
        "p10": 1e-6,
        "p90": 2e-6,
        "source": 'a "quoted" source',
    }
    assert values["gemm"]["fp8"] == {"tile": [128, 64], "split_k": True}
    assert values["errors"] == {"with space": 3}
    assert values["sources"] == {"gemm.fp8": "trace", "errors": "score"}
    assert values["assumed"] == {"gemm.fp8.split_k": "why"}


def test_the_comment_comes_first() -> None:
    assert DOCUMENT.text().startswith("# two\n# lines\n\nchip = ")


def test_numbers_keep_four_digits() -> None:
    assert rounded(0.123456) == 0.1235
    assert rounded(44.3e9) == 44.3e9
    assert rounded(0.0) == 0.0
