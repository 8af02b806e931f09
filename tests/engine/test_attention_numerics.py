"""vLLM's Triton attention computes the same with every split count and tile that the knobs set.

Run by Triton's interpreter, on the CPU, through glmlab's own watches; in a process of its own, since the
interpreter is chosen when Triton is first imported. FP32 stands in for narrower types, which the
interpreter does not multiply faithfully.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")

ROOT = Path(__file__).parents[2]

# vLLM's CPU build turns Triton off unless Triton has a backend for the CPU.
SCRIPT = r"""
import json, types
import triton.backends
triton.backends.backends["cpu"] = types.SimpleNamespace(driver=types.SimpleNamespace(is_active=lambda: True))
import torch
from glmlab.live import triton_attention, triton_mla
from glmlab.live.forced import force, forced, reset
assert triton_attention.install() == "" and triton_mla.install() == ""
from vllm.v1.attention.backends.mla import triton_mla as mla_backend
from vllm.v1.attention.ops.triton_decode_attention import decode_attention_fwd
from vllm.v1.attention.ops.triton_unified_attention import unified_attention

torch.manual_seed(0)
heads, kv_heads, size, page, lengths = 6, 2, 32, 16, [5, 70, 200]
blocks = [-(-length // page) for length in lengths]
table = torch.zeros(len(lengths), max(blocks), dtype=torch.int32)
free = torch.randperm(sum(blocks)).int()
for row, count in enumerate(blocks):
    table[row, :count], free = free[:count], free[count:]
keys, values = (torch.randn(sum(blocks), page, kv_heads, size) for _ in range(2))
query = torch.randn(len(lengths), heads, size)
scale = size**-0.5


def rows(cache, row):
    return cache[table[row].long()].flatten(0, 1)[: lengths[row]]


expected = torch.stack([
    torch.einsum(
        "hl,lhd->hd",
        torch.softmax(torch.einsum("hd,lhd->hl", query[row], k) * scale, -1), v,
    )
    for row in range(len(lengths))
    for k, v in [[rows(cache, row).repeat_interleave(heads // kv_heads, 1) for cache in (keys, values)]]
])


def gqa(splits, tile):
    triton_attention.forget()
    reset({"attn_decode_tile": tile})
    out = torch.full_like(query, float("nan"))
    scratch = [torch.full((8, heads, splits, *more), float("nan")) for more in ((size,), (), ())]
    unified_attention(
        q=query, k=keys, v=values, out=out, cu_seqlens_q=torch.arange(len(lengths) + 1, dtype=torch.int32),
        max_seqlen_q=1, seqused_k=torch.tensor(lengths, dtype=torch.int32), max_seqlen_k=max(lengths),
        softmax_scale=scale, causal=True, window_size=(-1, -1), block_table=table, softcap=0,
        q_descale=None, k_descale=None, v_descale=None, seq_threshold_3D=8, num_par_softmax_segments=splits,
        softmax_segm_output=scratch[0], softmax_segm_max=scratch[1], softmax_segm_expsum=scratch[2],
    )
    used = triton_attention._used.found()
    assert (used["kv_splits"], used["attn_decode_tile"]) == (splits, tile), used
    return float((out - expected).abs().max())


latent, rotary = 32, 16
cache = torch.randn(sum(blocks), page, 1, latent + rotary)
wide = torch.randn(len(lengths), heads, latent + rotary)
dense = torch.stack([
    torch.softmax(wide[row] @ rows(cache, row)[:, 0].T * scale, -1) @ rows(cache, row)[:, 0, :latent]
    for row in range(len(lengths))
])


def mla(splits, tile):
    triton_mla.forget()
    reset({"kv_splits": splits, "attn_decode_tile": tile})
    count = mla_backend._compute_num_kv_splits(max(lengths), 132)
    assert count == splits
    out = torch.full((len(lengths), heads, latent), float("nan"))
    decode_attention_fwd(
        wide, cache, cache[..., :latent], out, torch.zeros(len(lengths), heads), table,
        torch.tensor(lengths, dtype=torch.int32),
        torch.full((len(lengths), heads, count, latent + 1), float("nan")), count, scale, page,
        k_scale=torch.tensor(1.0), v_scale=torch.tensor(1.0), is_mla=True,
    )
    used = triton_mla._used.found()
    assert (used["kv_splits"], used["attn_decode_tile"]) == (splits, tile), used
    return float((out - dense).abs().max())


print(json.dumps({
    "gqa": {f"{s} splits, tile {t}": gqa(s, t) for s in (1, 2, 16, 64) for t in (16, 32, 64)},
    "mla": {f"{s} splits, tile {t}": mla(s, t) for s in (1, 3, 7, 64) for t in (16, 32, 64)},
}))
"""


@pytest.fixture(scope="module")
def errors() -> dict[str, dict[str, float]]:
    """Backend -> setting -> largest error against softmax attention in torch."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("backend", ["gqa", "mla"])
def test_every_split_count_and_tile_gives_the_same_numbers(
    errors: dict[str, dict[str, float]], backend: str
) -> None:
    assert len(errors[backend]) == 12
    for setting, error in errors[backend].items():
        assert error < 1e-5, setting
