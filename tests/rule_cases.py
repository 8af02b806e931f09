"""For each rule a recipe that it speaks of, and the one change after which it is silent.

Keys are fields of a recipe; with ``@``: ``@gpu``, ``@count`` (4), versions such as ``@vllm``, and
``@config``: (packaged model, changes to its config.json).
"""

from __future__ import annotations

from typing import Any

Case = tuple[dict[str, Any], dict[str, Any]]

SGLANG = {"serving_engine": "sglang"}
DSA = {"model": "glm-5.1-reap-160"}
DENSE = {**DSA, "dense_mla": True}
GQA = {"model": "glm-4.7"}
SPARSE = {**DSA, "@vllm": "0.32.0"}
TRITON = {**GQA, "attention_backend": "TRITON_ATTN"}
BF16_MOE = {**GQA, "moe_tiles": "16x32x64 g1 w4 s3"}
NVFP4 = {"model": "glm-4.7-nvfp4"}
PCIE_IPC = "VLLM_ALLREDUCE_USE_FLASHINFER_PCIE_IPC"

CASES: dict[str, Case] = {
    # ------------------------------------------------------------------ sparse attention
    "sparse-mla-backend-missing": ({**DSA, "@vllm": "0.23.0"}, {"@vllm": "0.24.0"}),
    "sparse-mla-flashinfer-too-old": ({**SPARSE, "@flashinfer": "0.6.13"}, {"@flashinfer": "0.6.14"}),
    "flashinfer-pin-too-old": ({**DSA, "@vllm": "0.25.0"}, {"@vllm": "0.28.0"}),
    "sparse-mla-kv-dtype": ({**SPARSE, "kv_cache_dtype": "nvfp4"}, {"kv_cache_dtype": "fp8"}),
    "sparse-mla-page-size": ({**SPARSE, "block_size": 32}, {"block_size": 128}),
    "sparse-mla-page-size-before-0.32": ({**DSA, "@vllm": "0.26.0", "block_size": 128}, {"block_size": 256}),
    "sparse-mla-index-topk": (
        {"@config": ("glm-5.1", {"index_topk": 1024}), "@vllm": "0.32.0"},
        {"@config": ("glm-5.1", {"index_topk": 2048})},
    ),
    "sparse-mla-hangs-under-load": ({**SPARSE, "max_num_seqs": 2}, {"max_num_seqs": 1}),
    "dense-backend-for-sparse-attention": (
        {**SPARSE, "attention_backend": "TRITON_MLA"},
        {"dense_mla": True},
    ),
    "dense-mla-quality": ({**DENSE, "@vllm": "0.32.0"}, {"dense_mla": False}),
    "dense-mla-quality-sglang": ({**SGLANG, **DENSE}, {"dense_mla": False}),
    "dense-mla-real-weights-untested": (DENSE, {"weights": "random"}),
    "dense-mla-without-dsa": ({**GQA, "dense_mla": True}, {"dense_mla": False}),
    "sglang-dsa-without-kernel": ({**SGLANG, **DSA, "@sglang": "0.5.14"}, {"@sglang": "0.5.15.post1"}),
    "sglang-dsa-falls-back": ({**SGLANG, **DSA, "@sglang": "0.5.16"}, {"@sglang": "0.5.18"}),
    "sglang-dense-mla-is-an-edit": ({**SGLANG, **DENSE}, {"dense_mla": False}),
    "nsa-on-sm120": (
        {**SGLANG, **DSA, "attention_backend": "nsa", "@sglang": "0.5.10.post1"},
        {"attention_backend": "triton"},
    ),
    "dcp-refused-by-sparse-mla": (
        {**SPARSE, "tensor_parallel": 4, "decode_context_parallel": 4},
        {"decode_context_parallel": 1},
    ),
    "index-topk-pattern-missing": (
        {"@config": ("glm-5.1", {"index_topk_freq": 4})},
        {"@config": ("glm-5.1", {"index_topk_freq": 4, "index_topk_pattern": "F" + "S" * 77})},
    ),
    "index-topk-pattern-missing-sglang": (
        {**SGLANG, "@config": ("glm-5.1", {"index_topk_freq": 4})},
        {"@config": ("glm-5.1", {"index_topk_freq": 4, "index_topk_pattern": "F" + "S" * 77})},
    ),
    "fp4-indexer-cache": (
        {**SPARSE, "engine_args": {"attention_config": {"use_fp4_indexer_cache": True}}},
        {"@gpu": "b200"},
    ),
    "glm-5.3-flash-on-sm120": ({"model": "zai-org/GLM-5.3-Flash"}, {"@gpu": "h200"}),
    # ------------------------------------------------------------------ KV splits
    "kv-splits-on-the-sparse-path": ({**DSA, "kv_splits": 64}, {"dense_mla": True}),
    "kv-splits-with-flashinfer": (
        {**GQA, "kv_cache_dtype": "fp8", "kv_splits": 64},
        {"attention_backend": "TRITON_ATTN"},
    ),
    "kv-splits-with-flash-attention": ({**GQA, "kv_splits": 64}, {"kv_splits": 0}),
    "kv-splits-with-another-mla-backend": (
        {"model": "glm-4.7-flash", "kv_splits": 64, "@gpu": "h100"},
        {"attention_backend": "TRITON_MLA"},
    ),
    "kv-splits-with-mtp": (
        {**TRITON, "kv_splits": 64, "mtp_tokens": 1, "@vllm": "0.32.0"},
        {"mtp_tokens": 0},
    ),
    "kv-splits-with-mtp-and-mla-0.26": (
        {**DENSE, "kv_splits": 64, "mtp_tokens": 1, "@vllm": "0.26.0"},
        {"@vllm": "0.32.0"},
    ),
    "kv-splits-power-of-two": ({**TRITON, "kv_splits": 48}, {"kv_splits": 32}),
    "kv-splits-beyond-batch": ({**TRITON, "kv_splits": 64, "max_num_seqs": 17}, {"max_num_seqs": 16}),
    "kv-splits-ignore-batch": ({**DENSE, "max_num_seqs": 32, "@vllm": "0.32.0"}, {"kv_splits": 64}),
    "triton-mla-four-splits": ({"model": "glm-4.7-flash", "@vllm": "0.19.1"}, {"@vllm": "0.22.1"}),
    "sglang-default-splits": ({**SGLANG, **DENSE, "tensor_parallel": 2}, {"kv_splits": 64}),
    "flash-attention-splits-off-hopper": ({**GQA, "flash_attn_max_splits": 16}, {"@gpu": "h100"}),
    # ------------------------------------------------------------------ KV cache
    "fp8-kv-with-flash-attention": (
        {**GQA, "attention_backend": "FLASH_ATTN", "kv_cache_dtype": "fp8"},
        {"@gpu": "h100"},
    ),
    "fp8-kv-needs-a-canary": ({**GQA, "kv_cache_dtype": "fp8"}, {"kv_cache_dtype": "auto"}),
    "fp8-kv-sglang-before-0.5.10.post1": (
        {**SGLANG, **DENSE, "kv_cache_dtype": "fp8_e4m3", "@sglang": "0.5.10"},
        {"@sglang": "0.5.10.post1"},
    ),
    "fp8-kv-sglang-flashinfer-mla": (
        {**SGLANG, **DENSE, "kv_cache_dtype": "fp8_e4m3", "attention_backend": "flashinfer"},
        {"attention_backend": "triton"},
    ),
    "fp8-kv-of-glm-4.7-flash": (
        {"model": "glm-4.7-flash", "kv_cache_dtype": "fp8"},
        {"kv_cache_dtype": "auto"},
    ),
    "nvfp4-without-kv-scales": ({**NVFP4, "kv_cache_dtype": "fp8", "@vllm": "0.16.0"}, {"@vllm": "0.17.0"}),
    "triton-page-size": ({**TRITON, "block_size": 24}, {"block_size": 32}),
    "b12x-attention-page-size": (
        {**GQA, "attention_backend": "B12X", "kv_cache_dtype": "fp8", "block_size": 32},
        {"block_size": 64},
    ),
    "kv-format-not-of-backend": (
        {**DENSE, "attention_backend": "TRITON_MLA", "kv_cache_dtype": "fp8_ds_mla"},
        {"kv_cache_dtype": "bfloat16"},
    ),
    "nvfp4-kv-too-old": ({**GQA, "kv_cache_dtype": "nvfp4", "@vllm": "0.26.0"}, {"@vllm": "0.32.0"}),
    "kv-format-not-of-sglang": (
        {**SGLANG, **DSA, "kv_cache_dtype": "fp8_ds_mla"},
        {"kv_cache_dtype": "fp8_e5m2"},
    ),
    "context-beyond-model": ({**GQA, "max_model_len": 202_753}, {"max_model_len": 202_752}),
    # ------------------------------------------------------------------ MTP
    "mtp-layer-missing": (
        {"@config": ("glm-4.7", {"num_nextn_predict_layers": 0}), "mtp_tokens": 1},
        {"@config": ("glm-4.7", {"num_nextn_predict_layers": 1})},
    ),
    "mtp-layer-often-dropped": ({**NVFP4, "mtp_tokens": 1}, {"weights": "random"}),
    "mtp-more-than-three": ({**GQA, "mtp_tokens": 4}, {"mtp_tokens": 3}),
    "mtp-int4-slower": ({"model": "glm-4.6-awq", "mtp_tokens": 1, "max_num_seqs": 4}, {"max_num_seqs": 5}),
    "mtp-does-not-fit-with-long-dcp": (
        {
            **DENSE,
            "mtp_tokens": 1,
            "tensor_parallel": 4,
            "decode_context_parallel": 4,
            "max_model_len": 250_000,
        },
        {"max_model_len": 249_999},
    ),
    "mtp-sglang-page-and-kv": (
        {**SGLANG, **DENSE, "mtp_tokens": 1, "block_size": 128, "@sglang": "0.5.10.post1"},
        {"block_size": 64},
    ),
    "mtp-fp8-kv-on-vllm": ({**DSA, "mtp_tokens": 1, "kv_cache_dtype": "fp8"}, {"kv_cache_dtype": "auto"}),
    "mtp-sglang-spec-v2": (
        {**SGLANG, **DENSE, "mtp_tokens": 1, "env": {}},
        {"env": {"SGLANG_ENABLE_SPEC_V2": "1"}},
    ),
    # ------------------------------------------------------------------ parallelism
    "more-ranks-than-gpus": ({**GQA, "tensor_parallel": 8}, {"@count": 8}),
    "gpus-left-idle": ({**GQA, "tensor_parallel": 2}, {"tensor_parallel": 4}),
    "heads-do-not-divide": ({**GQA, "tensor_parallel": 3}, {"tensor_parallel": 4}),
    "width-does-not-divide": (
        {"@config": ("glm-4.7", {"moe_intermediate_size": 1538}), "tensor_parallel": 4},
        {"@config": ("glm-4.7", {"moe_intermediate_size": 1540})},
    ),
    "fp8-blocks-do-not-divide": (
        {"model": "glm-4.5-air", "quantization": "fp8_per_block", "tensor_parallel": 4},
        {"expert_parallel": True},
    ),
    "experts-do-not-divide": (
        {"@config": ("glm-4.7", {"n_routed_experts": 161}), "expert_parallel": True, "tensor_parallel": 4},
        {"@config": ("glm-4.7", {"n_routed_experts": 160})},
    ),
    "more-stages-than-layers": ({**GQA, "pipeline_parallel": 93}, {"pipeline_parallel": 92}),
    "stages-of-unequal-length": ({**DSA, "pipeline_parallel": 4}, {"pipeline_parallel": 3}),
    "ep-on-pcie-small-loss": ({**GQA, "expert_parallel": True, "tensor_parallel": 4}, {"@gpu": "h100"}),
    "ep-on-pcie-all-to-all": (
        {**GQA, "expert_parallel": True, "tensor_parallel": 2, "data_parallel": 2},
        {"data_parallel": 1},
    ),
    # 96 query heads over 2 x 5 ranks.
    "ep-on-pcie-all-to-all-stays": (
        {**GQA, "expert_parallel": True, "tensor_parallel": 2, "data_parallel": 5},
        {"data_parallel": 2},
    ),
    "all-to-all-needs-nvlink": (
        {**GQA, "engine_args": {"all2all_backend": "deepep_low_latency"}},
        {"engine_args": {"all2all_backend": "allgather_reducescatter"}},
    ),
    "dcp-does-not-divide": (
        {**DENSE, "tensor_parallel": 4, "decode_context_parallel": 3},
        {"decode_context_parallel": 2},
    ),
    "dcp-beyond-kv-heads": (
        {**GQA, "tensor_parallel": 16, "decode_context_parallel": 4},
        {"decode_context_parallel": 2},
    ),
    "pipeline-sends-every-token": (
        {**GQA, "pipeline_parallel": 2, "env": {"VLLM_USE_V2_MODEL_RUNNER": "0"}},
        {"env": {"VLLM_USE_V2_MODEL_RUNNER": "1"}},
    ),
    "dcp-without-softmax-sums": (
        {**TRITON, "tensor_parallel": 16, "decode_context_parallel": 2},
        {"attention_backend": "FLASHINFER"},
    ),
    "dcp-costs-decode": ({**DENSE, "tensor_parallel": 4, "decode_context_parallel": 2}, {"@gpu": "h100"}),
    # ------------------------------------------------------------------ communication
    "custom-all-reduce-beyond-two-pcie": (
        {**GQA, "custom_all_reduce": True, "tensor_parallel": 4},
        {"tensor_parallel": 2},
    ),
    "pcie-ipc-all-reduce": ({**GQA, "tensor_parallel": 4, "@vllm": "0.30.0"}, {"env": {PCIE_IPC: "1"}}),
    "pcie-ipc-all-reduce-too-old": ({**GQA, "env": {PCIE_IPC: "1"}, "@vllm": "0.28.0"}, {"@vllm": "0.30.0"}),
    "expandable-segments-break-ipc": (
        {**GQA, "tensor_parallel": 2, "env": {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}},
        {"custom_all_reduce": False},
    ),
    "nccl-hangs-with-iommu": ({**GQA, "pipeline_parallel": 4}, {"env": {"NCCL_P2P_LEVEL": "SYS"}}),
    "nccl-p2p-off": (
        {**GQA, "tensor_parallel": 4, "env": {"NCCL_P2P_DISABLE": "1"}},
        {"env": {"NCCL_P2P_DISABLE": "0"}},
    ),
    "symmetric-memory-not-here": ({**GQA, "env": {"VLLM_ALLREDUCE_USE_SYMM_MEM": "1"}}, {"@gpu": "h100"}),
    "preloaded-libvgpu": (
        {**GQA, "env": {"LD_PRELOAD": "/usr/lib/libvgpu.so"}},
        {"env": {"LD_PRELOAD": "/usr/lib/libjemalloc.so"}},
    ),
    # ------------------------------------------------------------------ experts
    "nvfp4-moe-needs-a-canary": (NVFP4, {"@gpu": "b200"}),
    "cutlass-nvfp4-shared-memory": ({**NVFP4, "@flashinfer": "0.6.12"}, {"@flashinfer": "0.6.13"}),
    "cutlass-dsl-4.5.0": ({**GQA, "@cutlass-dsl": "4.5.0"}, {"@cutlass-dsl": "4.5.1"}),
    "nvfp4-needs-120f": (
        {**NVFP4, "env": {"FLASHINFER_CUDA_ARCH_LIST": "12.0a"}},
        {"env": {"FLASHINFER_CUDA_ARCH_LIST": "12.0f"}},
    ),
    "moe-backend-needs-tcgen05": ({**NVFP4, "moe_backend": "flashinfer-trtllm"}, {"@gpu": "b200"}),
    "nvfp4-moe-backend-on-hopper": (
        {**NVFP4, "moe_backend": "flashinfer_cutlass", "@gpu": "h100"},
        {"moe_backend": "marlin"},
    ),
    "nvfp4-moe-on-hopper-is-marlin": ({**NVFP4, "@gpu": "h200"}, {"@gpu": "b200"}),
    "flashinfer-b12x-too-old": (
        {**NVFP4, "moe_backend": "flashinfer_b12x", "@vllm": "0.19.1"},
        {"@vllm": "0.22.1"},
    ),
    "b12x-too-old": ({**NVFP4, "linear_backend": "b12x", "@vllm": "0.26.0"}, {"@vllm": "0.28.0"}),
    # bf16: (64 x 64 + 64 x 256) x 2 B = 40,960 a stage; 4 stages keep 3 at least, 3 may keep all.
    "moe-tile-exceeds-shared-memory": (
        {**GQA, "moe_tiles": "64x256x64 g1 w4 s4"},
        {"moe_tiles": "64x256x64 g1 w4 s3"},
    ),
    "moe-tile-may-exceed-shared-memory": (
        {**GQA, "moe_tiles": "64x256x64 g1 w4 s3"},
        {"moe_tiles": "64x256x64 g1 w4 s2"},
    ),
    "fp8-gemm-tile-exceeds-shared-memory": (
        {"model": "glm-4.7-fp8", "fp8_gemm_tiles": "128x128x128 g1 w4 s5"},
        {"fp8_gemm_tiles": "128x128x128 g1 w4 s4"},
    ),
    # MLA, BF16: 2 stages x 576 x 2 B = 2,304 B a KV token: 147,456 at 64, 73,728 at 32.
    "attention-tile-exceeds-shared-memory": ({**DENSE, "attn_decode_tile": 64}, {"attn_decode_tile": 32}),
    "moe-tiles-with-nvfp4": ({**NVFP4, "moe_tiles": "16x32x64 g1 w4 s3"}, {"moe_backend": "emulation"}),
    "moe-tiles-with-another-backend": ({**BF16_MOE, "moe_backend": "cutlass"}, {"moe_backend": "triton"}),
    "moe-tiles-with-the-default-backend": (BF16_MOE, {"moe_backend": "triton"}),
    "moe-tiles-with-marlin-int4": (
        {"model": "glm-4.6-awq", "moe_tiles": "16x32x64 g1 w4 s3"},
        {"moe_backend": "triton"},
    ),
    "fp8-gemm-tiles-without-fp8": ({**GQA, "fp8_gemm_tiles": "default"}, {"model": "glm-4.7-fp8"}),
    "fp8-gemm-tiles-with-another-backend": (
        {"model": "glm-4.7-fp8", "fp8_gemm_tiles": "default"},
        {"linear_backend": "triton"},
    ),
    # E=128,N=704 in FP8 has a file for the Workstation card, N=352 has none.
    "no-tuned-moe-file": ({"model": "glm-4.5-air-fp8", "tensor_parallel": 4}, {"tensor_parallel": 2}),
    # ------------------------------------------------------------------ kernels
    "attention-backend-not-for-this-gpu": (
        {"model": "glm-4.7-flash", "attention_backend": "flashmla"},
        {"@gpu": "h100"},
    ),
    "attention-backend-of-another-kind": (
        {**GQA, "attention_backend": "triton_mla"},
        {"attention_backend": "triton_attn"},
    ),
    "attention-backend-unknown": (
        {**GQA, "attention_backend": "TRITON-ATTN"},
        {"attention_backend": "TRITON_ATTN"},
    ),
    "moe-backend-unknown": ({**GQA, "moe_backend": "tritn"}, {"moe_backend": "triton-unfused"}),
    "linear-backend-unknown": ({**GQA, "linear_backend": "cutlas"}, {"linear_backend": "CUTLASS"}),
    "b12x-not-for-this-gpu": (
        {**NVFP4, "linear_backend": "flashinfer-b12x", "@gpu": "b200"},
        {"@gpu": "rtx-5090"},
    ),
    "b12x-attention-too-old": ({**GQA, "attention_backend": "B12X", "@vllm": "0.28.0"}, {"@vllm": "0.30.0"}),
    "sglang-deep-gemm": ({**SGLANG, **GQA}, {"env": {"SGLANG_ENABLE_JIT_DEEPGEMM": "0"}}),
    "deep-gemm-with-fp8-weights": ({"model": "glm-5.1-fp8"}, {"env": {"VLLM_USE_DEEP_GEMM": "0"}}),
    "fp8-linear-without-kernel": ({"model": "glm-4.7-fp8", "@vllm": "0.13.0"}, {"@vllm": "0.14.0"}),
    "sglang-shared-experts-fusion": (
        {**SGLANG, "model": "glm-5.1-nvfp4"},
        {"engine_args": {"disable_shared_experts_fusion": True}},
    ),
    "sglang-is-not-started": ({**SGLANG, **GQA}, {"serving_engine": "vllm"}),
    # ------------------------------------------------------------------ checkpoints
    "stray-num-experts": (
        {"@config": ("glm-5.1", {"n_routed_experts": 168, "num_experts": 256})},
        {"@config": ("glm-5.1", {"n_routed_experts": 168, "num_experts": 168})},
    ),
    "transformers-too-old": (
        {**GQA, "@vllm": "0.30.0", "@transformers": "5.10.3"},
        {"@transformers": "5.10.4"},
    ),
    "transformers-excluded": (
        {**GQA, "@vllm": "0.23.0", "@transformers": "5.5.0"},
        {"@transformers": "4.57.0"},
    ),
    "reap-154-loops": ({"model": "glm-5.1-reap-154"}, {"model": "glm-5.1-reap-160"}),
    "parsers-glm45": (
        {"model": "glm-4.6", "engine_args": {"reasoning_parser": "glm45"}},
        {"engine_args": {"reasoning_parser": "glm45", "tool_call_parser": "glm45"}},
    ),
    "parsers-glm47": (
        {"model": "glm-4.7", "engine_args": {"tool_call_parser": "glm47"}},
        {"engine_args": {"reasoning_parser": "glm45", "tool_call_parser": "glm47"}},
    ),
    "tool-parser-of-another-generation": (
        {"model": "glm-4.7", "engine_args": {"tool_call_parser": "glm45"}},
        {"engine_args": {"tool_call_parser": "glm47"}},
    ),
    "reasoning-parser-too-new": (
        {**GQA, "engine_args": {"reasoning_parser": "glm47"}, "@vllm": "0.23.0"},
        {"@vllm": "0.24.0"},
    ),
}
