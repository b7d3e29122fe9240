"""Memory of a rank by term, against figures done by hand, and the refusal of what does not fit."""

import pytest

from hwmodels.errors import InfeasibleError
from workloads.layers import Block, Layer, Parameters
from workloads.memory import (
    BUFFER_BYTES,
    CONTEXT_BYTES,
    check_memory,
    memory_terms,
    rank_parameters,
)
from workloads.model import MODELS
from workloads.parallel import ParallelPlan
from workloads.recipes import Passes, recipe
from workloads.schedules import SCHEDULES


def keeps(size):
    return (Block("any", Passes(saved_bytes=size)),)


STAGES = (
    (Layer("dense", keeps(7), Parameters(dense=100), tables=(("embedding", 40),)),),
    (
        Layer("moe", keeps(11), Parameters(dense=60, routed=200)),
        Layer("mtp", tables=(("embedding", 40),)),
        Layer("head", tables=(("head", 40),), logits_bytes=5),
    ),
)
DENSE, EXPERTS = 8, 2


def terms(held, zero=1, schedule="1f1b", rank=0, name="fp8-blockwise"):
    program = SCHEDULES[schedule].steps(2, 4)[rank]
    return memory_terms(STAGES, held, program, DENSE, EXPERTS, zero, recipe(name))


def test_each_term_of_a_rank_with_both_stages():
    """440 parameters: 2 bytes each in BF16, 1 in FP8 for all but the 80 of embedding and head,
    4 of gradient, 8 of optimizer state for 1/8 of 240 and 1/2 of 200. DualPipe's rank 0 of two
    holds at most two chunks of stage 0 and one of stage 1.
    """
    assert terms((0, 1), schedule="dualpipe") == {
        "weights": 880,
        "fp8_weights": 360,
        "gradients": 1760,
        "optimizer_states": 8 * (240 / 8 + 200 / 2),
        "activations": 2 * 7 + 11,
        "logits": 5,
        "buffers": BUFFER_BYTES,
        "driver_and_context": CONTEXT_BYTES,
    }


def test_bf16_keeps_no_copies_and_moments_in_fp32():
    """12 bytes of states a parameter, sharded likewise; no term of FP8 weights."""
    fp8, bf16 = terms((0, 1)), terms((0, 1), name="bf16")
    assert bf16["optimizer_states"] == 12 * (240 / 8 + 200 / 2)
    assert fp8.keys() - bf16.keys() == {"fp8_weights"}
    assert (bf16["weights"], bf16["gradients"]) == (fp8["weights"], fp8["gradients"])


def test_a_rank_holds_what_its_stages_hold():
    assert rank_parameters(STAGES, (0,)) == Parameters(100, 40, 0)
    assert rank_parameters(STAGES, (0, 1)) == Parameters(160, 80, 200)
    assert terms((0,))["logits"] == 0
    assert terms((1,), rank=1)["logits"] == 5


def test_without_zero_every_rank_keeps_all_optimizer_states():
    assert terms((0, 1), zero=0)["optimizer_states"] == 8 * 440
    assert terms((0, 1), zero=1)["optimizer_states"] == 8 * 130


def test_activations_are_those_of_the_chunks_in_flight():
    """1F1B on two ranks: two chunks on the first, one on the last."""
    assert terms((0,), rank=0)["activations"] == 2 * 7
    assert terms((1,), rank=1)["activations"] == 11


# DeepSeek-V3 on 16 ranks, GB by hand: table4_chain.md §5


@pytest.mark.parametrize("rank", range(1, 15))
def test_a_middle_rank_of_v3_needs_what_the_study_adds_up(v3_step, rank):
    """1.86 B replicated and 1.41 B routed: 6.5, 3.3 and 13.1 GB, and 2.9 of states under ZeRO-1
    (256 replicas, experts 4); 17 chunks of four layers of 0.64 GB.
    """
    gb = {name: size / 1e9 for name, size in v3_step.memory_bytes[rank].items()}
    assert gb["weights"] == pytest.approx(6.5, abs=0.05)
    assert gb["fp8_weights"] == pytest.approx(3.3, abs=0.05)
    assert gb["gradients"] == pytest.approx(13.1, abs=0.05)
    assert gb["optimizer_states"] == pytest.approx(2.9, abs=0.05)
    assert gb["activations"] == pytest.approx(17 * 4 * 0.64, rel=0.005)
    assert gb["logits"] == 0


@pytest.mark.parametrize("rank", [0, 15])
def test_an_outer_rank_of_v3_needs_what_the_study_adds_up(v3_step, rank):
    """4.41 B replicated, embedding and head among them, and 0.53 B routed: 9.9, 19.7 and 1.2 GB.

    The study's 32.5 GB of activations contain 1 GB of BF16 logits and neither the inputs of the
    heads nor that of MTP's projection; here logits are FP32, both heads' 4.24 GB. Its 4.9 GB of FP8
    weights are an upper bound: embedding and head (1.85 B) have no FP8 copy.
    """
    gb = {name: size / 1e9 for name, size in v3_step.memory_bytes[rank].items()}
    assert gb["weights"] == pytest.approx(9.9, abs=0.05)
    assert gb["gradients"] == pytest.approx(19.7, abs=0.05)
    assert gb["optimizer_states"] == pytest.approx(1.2, abs=0.05)
    assert gb["logits"] == pytest.approx(2 * 4096 * 129280 * 4 / 1e9, rel=1e-12)
    inputs = 2 * 2 + 2 * (1 + 4 / 128)  # bytes an element: two heads in BF16, 2h of MTP in FP8
    in_flight = (gb["activations"] - (32.5 - 2.1)) * 1e9 / (4096 * 7168 * inputs)
    assert 0 < in_flight < 17
    embedding_and_head = 2 * 129280 * 7168 / 1e9
    assert gb["fp8_weights"] + embedding_and_head == pytest.approx(4.9, abs=0.05)


def test_a_moe_layer_keeps_640_megabytes_and_a_dense_one_400(v3_step):
    """Two residuals 117, latents 17, attention output 105, received tokens 225 (7.5 GPUs a token),
    SwiGLU inputs 155, metadata 16 MB: 0.64 GB. Dense: 0.40 GB.
    """
    dense, *_, moe = v3_step.stages[0]
    assert moe.saved_bytes / 1e9 == pytest.approx(0.64, abs=0.005)
    assert dense.saved_bytes / 1e9 == pytest.approx(0.40, abs=0.005)


def test_v3_fits_into_80_gb_on_every_rank(v3_step):
    """As the report claims, without tensor parallelism (arXiv 2412.19437 §3.2)."""
    totals = [sum(terms.values()) for terms in v3_step.memory_bytes]
    assert max(totals) < 80e9
    assert min(totals) > 65e9


def test_ranks_that_hold_the_same_stages_need_the_same(v3_step):
    """Rank r and 15 - r hold stages r and 15 - r; DualPipe mirrors their programs."""
    for rank in range(8):
        assert v3_step.memory_bytes[rank] == v3_step.memory_bytes[15 - rank]


def test_copies_of_parameters_under_dualpipe_are_its_price(v3_step):
    """1F1B keeps one stage a rank: half the parameters of a middle rank under DualPipe."""
    plan = ParallelPlan(pp=16, ep=64, schedule="1f1b")
    own = rank_parameters(v3_step.stages, plan.stages_of_rank(7))
    both = rank_parameters(
        v3_step.stages, ParallelPlan(pp=16, ep=64, schedule="dualpipe").stages_of_rank(7)
    )
    assert 2 * own.total == both.total
    assert own.routed == 4 * 4 * MODELS.load("deepseek-v3").expert_parameters


def test_v3_on_half_as_many_gpus_an_expert_group_just_fits(v3_step):
    """EP 32 doubles the 1.41 B routed parameters of a middle rank: 9.9 GB more in BF16, FP8 and
    FP32, states as before under half as many shards. An H100 has 85.5 GB and not 80.
    """
    middle = v3_step.memory_bytes[7]
    routed = 4 * 4 * MODELS.load("deepseek-v3").expert_parameters
    more = routed * (2 + 1 + 4)
    for rank in (7, 8):
        assert 80e9 < sum(v3_step.memory_bytes[rank].values()) + more < 81559 * 2**20
    assert middle["driver_and_context"] == CONTEXT_BYTES
    assert 81559 * 2**20 - CONTEXT_BYTES < 79.10 * 2**30  # what CUDA has, less a context


# What does not fit


def test_the_fullest_rank_is_refused_with_its_three_largest_terms():
    sizes = {"weights": 20e9, "gradients": 30e9, "activations": 40e9, "logits": 1e9}
    with pytest.raises(InfeasibleError) as error:
        check_memory([{"weights": 85e9}, sizes, {"weights": 1e9}], 80e9)
    assert str(error.value) == (
        "memory of pipeline rank 1: needs 91 GB (activations 40 GB, gradients 30 GB, "
        "weights 20 GB ...), the GPU has 80 GB"
    )


def test_memory_that_just_fits_is_not_refused():
    check_memory([{"weights": 50e9, "activations": 30e9}], 80e9)
    with pytest.raises(InfeasibleError):
        check_memory([{"weights": 50e9, "activations": 30e9}], 80e9 - 1)
