"""What kernels are by their names: names as profilers write them, of many libraries."""

import tomllib
from pathlib import Path

import pytest

from calibration.read import kernel_classes
from calibration.read.kernel_classes import UNCLASSIFIED, KernelClass, classify
from calibration.read.torch_trace import TraceKernel

RULES = tomllib.loads(
    Path(kernel_classes.__file__).with_name("kernel_patterns.toml").read_text(encoding="utf-8")
)
GROUPS = {name: group for group, names in RULES["groups"].items() for name in names}


def kernel(name: str, kind: str = "kernel", collective: str = "") -> TraceKernel:
    return TraceKernel(name, kind, 7, 0.0, 1e-6, 0.0, (1,), "", 0, collective=collective)


ATEN = "void at::native::"
DEVICE = "void cutlass::device_kernel<"
ELEMENTWISE = f"{ATEN}vectorized_elementwise_kernel<4, at::native::"


@pytest.mark.parametrize(
    ("name", "expected", "family"),
    [
        # communication
        ("ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)",
         "all_reduce", "nccl"),
        ("ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgsStorage<4096ul>)", "all_gather", "nccl"),
        ("ncclDevKernel_ReduceScatter_Sum_f32_RING_LL", "reduce_scatter", "nccl"),
        ("ncclKernel_AllReduce_RING_LL_Sum_float(ncclDevComm*, unsigned long, ncclWork*)",
         "all_reduce", "nccl"),
        ("ncclDevKernel_Broadcast_RING_LL", "broadcast", "nccl"),
        ("ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)", "send", "nccl"),
        ("ncclDevKernel_Generic_4(ncclDevKernelArgsStorage<4096ul>)", "collective", "nccl"),
        ("void vllm::cross_device_reduce_1stage<__nv_bfloat16, 8>(vllm::RankData*)",
         "all_reduce", "one node"),
        ("void deep_ep::intranode::dispatch<2, 768, 8192>(int4*, float*)", "dispatch", "deepep"),
        ("void deep_ep::internode_ll::combine<true, 7168>(void*, void*)", "combine", "deepep"),
        ("void deep_ep::intranode::cached_notify_combine<8>(void**, int*)", "notify", "deepep"),
        ("void deep_ep::internode::notify_dispatch<false, 4>(int const*)", "notify", "deepep"),
        ("void hybrid_ep::dispatch_kernel<unsigned char>(param)", "dispatch", "deepep"),
        ("void deep_ep::layout::get_dispatch_layout<256, 32, 8>(long const*)",
         "router", "dispatch layout"),
        ("nvshmemi_alltoall_kernel", "all_to_all", "nvshmem"),
        ("barrier_on_stream_kernel_threadgroup(nvshmem_team_t)", "collective", "nvshmem"),
        # products
        ("nvjet_tst_192x192_64x4_2x1_v_bz_coopB_TNN", "gemm", "bf16"),
        ("nvjet_sm90_tss_64x8_64x16_4x1_v_bz_splitK_TNT", "gemm", "bf16"),
        ("nvjet_hsh_128x128_64x6_2x1_v_bz_TNT", "gemm", "fp16"),
        ("nvjet_sm100_qrtst_128x256_128x6_2x1_2cta_v_bz_NNT", "gemm", "fp8"),
        ("nvjet_qqtst_128x256_128x6_2x2_2cta_h_bz_Avec32UE8M0_Bvec32UE8M0_TNT", "gemm", "mxfp8"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_nn_n_tilesize128x128x64_cublas", "gemm", "bf16"),
        ("ampere_sgemm_128x64_tn", "gemm", "fp32"),
        ("void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_bf16_128x64_64x4_tn_align8>",
         "gemm", "bf16"),
        ("void gemv2T_kernel_val<int, int, __nv_bfloat16, __nv_bfloat16, float>", "gemm", "bf16"),
        ("void cublasLt::splitKreduce_kernel<32, 16, int, __nv_bfloat16>", "gemm", "split-k sum"),
        ("void deep_gemm::sm90_fp8_gemm_1d2d_impl<0u, 4096u, (deep_gemm::GemmType)0>",
         "gemm", "fp8_block"),
        ("void deep_gemm::sm90_fp8_gemm_1d2d_impl<0u, 2112u, 7168u, 1u, (deep_gemm::GemmType)1>",
         "grouped gemm", "fp8_block"),
        (f"{DEVICE}cutlass::gemm::kernel::GemmUniversal<cutlass::gemm::GroupProblemShape<"
         "cute::tuple<int, int, int> >, cutlass::bfloat16_t>>", "grouped gemm", "bf16"),
        ("fused_moe_kernel", "grouped gemm", ""),
        ("triton_tem_fused_mm_t_3", "gemm", "inductor"),
        # attention
        ("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128, 128, 64, 4>>",
         "attention", "forward"),
        ("void flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel<Flash_bwd_kernel_traits<128>>",
         "attention", "backward"),
        ("void flash_bwd_dot_do_o_kernel<true>", "elementwise", "attention backward preprocess"),
        ("void flash_bwd_convert_dq_kernel<Flash_bwd_kernel_traits<128>>",
         "cast", "attention backward postprocess"),
        (f"{DEVICE}flash::enable_sm90_or_later<flash::FlashAttnFwdSm90<flash::CollectiveMainloop",
         "attention", "forward"),
        (f"{DEVICE}flash::enable_sm90<flash::FlashAttnBwdSm90<flash::CollectiveMainloopBwdSm90<2",
         "attention", "backward"),
        (f"{DEVICE}flash::FlashAttnFwdCombine<cute::tuple<", "reduction", "attention combine"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x128x128_4x1x1",
         "attention", "forward"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16_knob_26_64x64x128_1x1x1",
         "attention", "backward"),
        ("fmha_cutlassF_bf16_aligned_64x128_rf_sm80(PyTorchMemEffAttention::AttentionKernel<",
         "attention", "forward"),
        ("fmha_cutlassB_bf16_aligned_128x128_k128_sm80", "attention", "backward"),
        ("triton_tem_fused_flex_attention_backward_4", "attention", "backward"),
        # what surrounds them
        ("triton_red_fused__fused_rms_norm__scaled_dot_product_flash_attention_add_cat_0",
         "norm", "inductor"),
        ("triton_poi_fused_add_cat_mul_rsub_sigmoid_silu_split_0", "activation", "inductor"),
        ("triton_poi_fused_add_0", "elementwise", "inductor"),
        ("triton_per_fused_sum_2", "reduction", "inductor"),
        ("triton_for_fused_9", "optimizer", "foreach"),
        ("void transformer_engine::normalization::rmsnorm_fwd_tuned_kernel<", "norm", ""),
        ("void transformer_engine::normalization::ln_bwd_finalize_tuned_kernel<", "norm", ""),
        ("void layer_norm::ln_fwd_kernel<layer_norm::Kernel_traits<__nv_bfloat16", "norm", ""),
        (f"{ATEN}(anonymous namespace)::vectorized_layer_norm_kernel<float, float>", "norm", ""),
        ("void transformer_engine::block_scaled_1d_cast_transpose_kernel<true, true>",
         "transpose", "cast and transpose"),
        ("void transformer_engine::fused_rope_forward_kernel<__nv_bfloat16>", "rotary", ""),
        ("void transformer_engine::dgated_act_kernel<8, float>", "activation", "swiglu"),
        ("_swiglu_forward_kernel", "activation", "swiglu"),
        ("_permute_kernel", "permute", ""),
        ("_unpermute_kernel", "permute", ""),
        ("_row_id_map_pass_1_kernel", "router", "expert map"),
        ("void per_token_group_quant_8bit_kernel<c10::BFloat16>", "cast", "fp8"),
        ("void multi_tensor_apply_kernel<TensorListMetadata<4>, AdamFunctorMaster<float>>",
         "optimizer", "multi tensor"),
        ("liger_cross_entropy_kernel", "loss", ""),
        (f"{ATEN}(anonymous namespace)::cunn_SoftMaxForward<8, float>", "loss", ""),
        (f"{ELEMENTWISE}CUDAFunctor_add<c10::BFloat16>, at::detail::Array<char*, 3> >",
         "elementwise", ""),
        (f"{ELEMENTWISE}FillFunctor<float>, at::detail::Array<char*, 1> >", "memset", ""),
        (f"{ELEMENTWISE}bfloat16_copy_kernel_cuda(at::TensorIteratorBase&)", "copy", ""),
        (f"{ELEMENTWISE}silu_kernel(at::TensorIteratorBase&)", "activation", ""),
        (f"{ATEN}unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda(at::", "copy", ""),
        (f"{ATEN}reduce_kernel<512, 1, at::native::ReduceOp<float, at::native::MeanOps<float>>>",
         "reduction", ""),
        (f"{ATEN}index_elementwise_kernel<128, 4, at::native::gpu_index_kernel<",
         "router", "index and sort"),
        (f"{ATEN}sbtopk::gatherTopK<float, unsigned int, 2, false>(", "router", "selection"),
        (f"{ATEN}(anonymous namespace)::CatArrayBatchedCopy<OpaqueType<2>>", "copy", ""),
        (f"{ATEN}(anonymous namespace)::indexSelectLargeIndex<c10::BFloat16>", "embedding", ""),
        ("void cub::DeviceRadixSortOnesweepKernel<cub::Policy800>", "router", "index and sort"),
    ],
)  # fmt: skip
def test_a_kernel_is_what_its_name_says(name: str, expected: str, family: str) -> None:
    assert classify(kernel(name)) == KernelClass(expected, family, GROUPS.get(expected, "glue"))


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("all_to_allv", "all_to_all"),
        ("alltoall_base", "all_to_all"),
        ("_allgather_base", "all_gather"),
        ("_reduce_scatter_base", "reduce_scatter"),
        ("allreduce", "all_reduce"),
        ("recv", "send"),
        ("something else", "send"),
        ("", "send"),
    ],
)
def test_pytorch_tells_which_collective_a_kernel_of_nccl_is_of(told: str, expected: str) -> None:
    assert classify(kernel("ncclDevKernel_SendRecv", collective=told)).name == expected


def test_what_computes_inside_a_collective_is_none() -> None:
    assert classify(kernel("nvjet_tst_64x64", collective="allreduce")).name == "gemm"


def test_copies_are_what_the_profiler_says() -> None:
    assert classify(kernel("Memcpy DtoD (Device -> Device)", "memcpy")).name == "copy"
    assert classify(kernel("Memset (Device)", "memset")).name == "memset"


def test_a_name_that_nobody_knows_is_unclassified() -> None:
    assert classify(kernel("xyzzy_kernel_42")) == KernelClass(UNCLASSIFIED, "", "glue")


def test_a_hostile_name_takes_no_time() -> None:
    assert classify(kernel("ep::" * 1000 + "e" * 96)).name == UNCLASSIFIED


def test_groups_are_of_classes_that_rules_give() -> None:
    classes = {rule["class"] for rule in RULES["kernels"]} | set(RULES["copies"].values())
    assert set(GROUPS) <= classes
