"""A whole layer by our kernels, forward, backward and decoding, against float64."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from calibration.gpu_day.sizes import TINY_LAYER
from calibration.measure.numerics import poison
from calibration.stack.attention import heads
from calibration.stack.dimensions import D_NOPE, Dimensions
from calibration.stack.layer import decoding, training
from calibration.stack.names import BACKWARD, DECODE, FORWARD
from calibration.stack.tape import Tape
from kernels import mla_decode, mla_prefill, rope, router
from kernels._device import FP8
from kernels._numerics import dequantize_blocks, dequantize_rows

# Two heads, ragged experts one of which has no rows, tokens with one copy and with two.
TRAINED = Dimensions(
    hidden=256,
    heads=2,
    q_rank=144,
    kv_rank=64,
    experts=8,
    groups=4,
    groups_kept=2,
    top_k=2,
    expert_width=128,
    tokens=24,
    arrived=6,
    counts=(5, 0, 3),
    batch=3,
    context=70,
    decode_counts=(2, 0, 3),
)
DECODED = replace(TRAINED, kv_rank=512)
CPU = torch.device("cpu")


def cast_error(casts: int) -> float:
    """Bound on the relative error of a result behind so many FP8 casts in a row.

    One cast of normal numbers is off by 2.6 % (the root mean square of a step of E4M3, relative);
    errors of casts are independent. Half as much again for what comes together.
    """
    return 1.5 * 0.026 * casts**0.5


def assert_near(got: Tensor, want: Tensor, casts: int, what: str) -> None:
    error = float((got.double() - want).norm() / want.norm())
    assert error < cast_error(casts), f"{what}: relative error {error:.3f}"


@pytest.fixture(scope="module")
def trained() -> dict[str, Tape]:
    """Both training tapes, played on poisoned buffers."""
    tapes = dict(training(TRAINED, CPU))
    for name in (FORWARD, BACKWARD):
        play_poisoned(tapes[name])
    return tapes


@pytest.fixture(scope="module")
def decoded() -> Tape:
    tape = decoding(DECODED, CPU)[DECODE]
    play_poisoned(tape, of_experts="h")
    return tape


def play_poisoned(tape: Tape, of_experts: str = "") -> None:
    """Play a tape whose results are poisoned before, and whose givens stay as they are.

    The integers of the map are plausible instead: a kernel must not be led outside its buffers.
    In a masked layout, rows `of_experts` that no expert has hold numbers: SwiGLU takes them all.
    """
    written = {name for step in tape.steps for name in step.writes}
    for name in written - tape.given:
        if tape.buffers[name].is_floating_point():
            poison(tape.buffers[name])
    if of_experts:
        rows = tape.buffers[of_experts]
        owned = torch.zeros(len(rows), dtype=torch.bool)
        for start, count in zip(tape.buffers["starts"], tape.buffers["counts"], strict=True):
            owned[start : start + count] = True
        rows[~owned] = 1.0
    before = {name: tape.buffers[name].clone() for name in tape.given - written}
    tape.bound_all()()
    for name, tensor in before.items():
        assert same_bits(tensor, tape.buffers[name]), f"{name} was given, and is changed"


def same_bits(a: Tensor, b: Tensor) -> bool:
    if a.dtype == FP8:
        return torch.equal(a.view(torch.uint8), b.view(torch.uint8))
    return torch.equal(a.nan_to_num(), b.nan_to_num())


class Reference:
    """A layer in float64 from the buffers that a tape was given; its leaves have gradients."""

    def __init__(self, tape: Tape, d: Dimensions) -> None:
        self.b, self.d, self.leaves = tape.buffers, d, dict[str, Tensor]()

    def leaf(self, name: str) -> Tensor:
        """Return a given buffer with its scales applied."""
        if name not in self.leaves:
            x, scale = self.b[name], self.b.get(f"{name}.scale")
            if scale is not None:
                x = (dequantize_blocks if name.startswith("w.") else dequantize_rows)(x, scale)
            self.leaves[name] = x.double().detach().requires_grad_()
        return self.leaves[name]

    def linear(self, x: Tensor, weight: str) -> Tensor:
        return x @ self.leaf(weight).mT

    def norm(self, x: Tensor, weight: str) -> Tensor:
        return x * (x.square().mean(1, keepdim=True) + 1e-6).rsqrt() * self.leaf(weight)

    def turned(self, x: Tensor) -> Tensor:
        return rope.reference(x, self.b["cos"], self.b["sin"])

    def latents(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the residual stream, the latent of queries and that of keys and values."""
        stream = self.leaf("x") + self.leaf("residual")
        normed = self.norm(stream, "w.norm")
        return stream, self.linear(normed, "w.q_a"), self.linear(normed, "w.kv_a")

    def queries(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Return the content and the turned position of each head."""
        q = heads(self.linear(self.norm(latent, "w.norm_q"), "w.q_b"), self.d.heads)
        return q[..., :D_NOPE], self.turned(q[..., D_NOPE:])

    def attention(self) -> tuple[Tensor, Tensor]:
        """Return the stream, and what attention adds to it."""
        stream, q_latent, kv_latent = self.latents()
        q = torch.cat(self.queries(q_latent), 2)
        kv = self.linear(self.norm(kv_latent[:, : self.d.kv_rank], "w.norm_kv"), "w.kv_b")
        kv = heads(kv, self.d.heads)
        key = self.turned(kv_latent[:, None, self.d.kv_rank :])
        k = torch.cat((kv[..., :D_NOPE], key.expand(-1, self.d.heads, -1)), 2)
        o, _ = mla_prefill.reference(q[None], k[None], kv[None, ..., D_NOPE:])
        return stream, self.linear(o[0].flatten(1), "w.o")

    def expert(self, x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        gate, lift = (x @ up.mT).chunk(2, 1)
        return (torch.nn.functional.silu(gate) * lift) @ down.mT

    def shared(self, x: Tensor) -> Tensor:
        y = self.expert(x, self.leaf("w.shared.up"), self.leaf("w.shared.down"))
        return y + self.leaf("home")

    def routed(self) -> Tensor:
        """Return the sum of the copies of each token that arrived."""
        x, chosen = self.leaf("arrived8"), self.b["arrived.experts"]
        up, down = self.leaf("w.routed.up"), self.leaf("w.routed.down")
        of_expert = [self.expert(x, up[e], down[e]) for e in range(len(self.d.counts))]
        hit = [(chosen == e).sum(1, keepdim=True) for e in range(len(of_expert))]
        return sum(y * n for y, n in zip(of_expert, hit, strict=True))

    def layer(self) -> dict[str, Tensor]:
        """Return what a training pass makes, by the names of the tape."""
        stream, attention = self.attention()
        stream_2 = stream + attention
        normed = self.norm(stream_2, "w.norm_2")
        return {
            "attention": attention,
            "stream_2": stream_2,
            "normed_2": normed,
            "logits": self.linear(normed, "w.gate"),
            "out": self.shared(normed),
            "sent": self.routed(),
        }


@pytest.fixture(scope="module")
def right(trained: dict[str, Tape]) -> Reference:
    return Reference(trained[BACKWARD], TRAINED)


@pytest.fixture(scope="module")
def results(right: Reference) -> dict[str, Tensor]:
    return right.layer()


# Casts in a row on the way: of latents, of what attention makes of them, of the experts' input.
@pytest.mark.parametrize(
    ("name", "casts"),
    [("attention", 3), ("stream_2", 3), ("logits", 3), ("sent", 1), ("out", 4)],
)
def test_a_training_pass_computes_the_layer(trained, results, name: str, casts: int) -> None:
    assert_near(trained[FORWARD].buffers[name], results[name].detach(), casts, name)


def test_tokens_are_routed_by_their_logits(trained) -> None:
    b = trained[FORWARD].buffers
    choice = {"groups": TRAINED.groups, "groups_kept": TRAINED.groups_kept, "top_k": TRAINED.top_k}
    chosen, weights = router.reference(b["logits"].float(), b["bias"], **choice)
    assert torch.equal(b["chosen"], chosen)
    assert torch.allclose(b["chosen.weights"].double(), weights)


# Gradient, its leaf, whether it is stored transposed, and the casts on the way there.
GRADIENTS = (
    ("d.sent", "arrived8", False, 2),
    ("d.w.routed.down", "w.routed.down", False, 2),
    ("d.w.routed.up", "w.routed.up", True, 3),
    ("d.w.gate", "w.gate", False, 3),
    ("d.w.norm_2", "w.norm_2", False, 5),
    ("d.w.shared.down", "w.shared.down", True, 5),
    ("d.w.shared.up", "w.shared.up", True, 5),
    ("d.w.o", "w.o", True, 6),
    ("d.w.q_b", "w.q_b", True, 8),
    ("d.w.kv_b", "w.kv_b", True, 8),
    ("d.w.norm_q", "w.norm_q", False, 8),
    ("d.w.norm_kv", "w.norm_kv", False, 8),
    ("d.w.q_a", "w.q_a", True, 8),
    ("d.w.kv_a", "w.kv_a", True, 8),
    ("d.w.norm", "w.norm", False, 8),
    ("d.x", "x", False, 8),
)


@pytest.fixture(scope="module")
def right_gradients(right: Reference, results: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradients of the leaves: what arrives from behind, times what the layer makes."""
    b = right.b
    arrives = {
        "out": b["d.out"],
        "stream_2": b["d.stream_2"],
        "normed_2": b["d.home"],
        "logits": b["d.logits"],
        "sent": dequantize_rows(b["d.arrived8"], b["d.arrived8.scale"]),
    }
    sum((results[name] * gradient.double()).sum() for name, gradient in arrives.items()).backward()
    return {name: leaf.grad for name, leaf in right.leaves.items()}


@pytest.mark.parametrize(("name", "leaf", "transposed", "casts"), GRADIENTS)
def test_the_backward_pass_computes_its_gradients(
    trained, right_gradients, name: str, leaf: str, transposed: bool, casts: int
) -> None:
    want = right_gradients[leaf]
    want = want.mT if transposed else want
    assert_near(trained[BACKWARD].buffers[name].view(want.shape), want, casts, name)


def test_every_weight_has_its_gradient_tested(trained) -> None:
    made = {name for step in trained[BACKWARD].steps for name in step.writes}
    assert {name for name in made if name.startswith("d.w.")} == {
        name for name, *_ in GRADIENTS if name.startswith("d.w.")
    }
    weights = {name for name in trained[FORWARD].given if name.startswith("w.")}
    bare = {name for name in weights if not name.endswith((".scale", ".t"))}
    assert {leaf for _, leaf, *_ in GRADIENTS if leaf.startswith("w.")} == bare


def test_an_expert_without_rows_has_no_gradient(trained) -> None:
    for name in ("d.w.routed.up", "d.w.routed.down"):
        assert trained[BACKWARD].buffers[name][1].abs().max() == 0


def test_a_pass_of_decoding_computes_the_layer(decoded: Tape) -> None:
    right, b = Reference(decoded, DECODED), decoded.buffers
    stream, q_latent, kv_latent = right.latents()
    new = b["cache"].view(-1, b["cache"].shape[-1])[b["slots"]].double()
    latent = right.norm(kv_latent[:, : DECODED.kv_rank], "w.norm_kv")
    key = right.turned(kv_latent[:, None, DECODED.kv_rank :])[:, 0]
    assert_near(new, torch.cat((latent, key), 1).detach(), 1, "the new token in the cache")

    content, turned = right.queries(q_latent)
    absorbed = torch.einsum("bhc,hcl->bhl", content, right.leaf("w.absorb_k"))
    q = torch.cat((absorbed, turned), 2).detach()
    o, _ = mla_decode.reference(q, b["cache"], b["table"], b["lengths"])
    o = torch.einsum("bhl,hlv->bhv", o, right.leaf("w.absorb_v"))
    attention = right.linear(o.flatten(1), "w.o")
    assert_near(b["attention"], attention.detach(), 3, "attention")
    normed = right.norm(stream + attention, "w.norm_2")
    assert_near(b["out"], right.shared(normed).detach(), 4, "out")
    for e, (start, count) in enumerate(zip(b["starts"], b["counts"], strict=True)):
        if count:
            rows = slice(int(start), int(start + count))
            x, up, down = (
                right.leaf(name) for name in ("arrived8", "w.routed.up", "w.routed.down")
            )
            want = right.expert(x[rows], up[e], down[e]).detach()
            assert_near(b["y"][rows], want, 1, f"expert {e}")


def test_a_step_left_out_leaves_the_others_something_to_work_on() -> None:
    """A kernel with wrong numbers is not played; no other then reads outside its buffers."""
    wrong = {"moe_map", "quantize", "rmsnorm", "mla_prefill", "fp8_wgrad", "cast_transpose"}
    tapes = training(TINY_LAYER, CPU)
    for tape in tapes.values():
        tape.bound_all([step.op for step in tape.steps if step.kernel in wrong])()
    for name in ("d.x", "d.sent"):
        assert tapes[BACKWARD].buffers[name].isfinite().all(), name
