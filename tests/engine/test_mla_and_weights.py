"""The MLA model, and random weights: same in every process, sensitive to what kernels do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from glmlab import Workload, find_recipe
from glmlab.catalog import find_model
from glmlab.engines.vllm_engine import VllmEngine
from glmlab.errors import KnobError


@pytest.fixture(scope="module", params=["tiny-glm4-moe", "tiny-glm4-moe-lite"])
def engine(request: pytest.FixtureRequest) -> Iterator[VllmEngine]:
    with VllmEngine(find_recipe(request.param)) as running:
        yield running


def test_the_catalog_counts_the_parameters_that_vllm_loads(engine: VllmEngine) -> None:
    """The engine loads the model without its MTP layer, as the catalog counts it."""

    model = find_model(engine.recipe.model)
    counted = engine.vllm.collective_rpc(_parameters)[0]
    assert counted == model.total_params


def _parameters(worker: object) -> int:
    """Parameters of the loaded model, as its checkpoint would count them.

    The CPU GEMM packs weights and leaves an empty parameter behind. W_UV and W_UK_T are vLLM's own
    copies of kv_b_proj, and the router's correction bias hangs at the experts a second time.
    """
    seen = {}
    copies = {"W_UV", "W_UK_T"}
    for name, module in worker.model_runner.model.named_modules():  # type: ignore[attr-defined]
        for key, tensor in module.named_parameters(recurse=False):
            count = tensor.numel()
            if key in copies or (name.endswith("routed_experts") and key.startswith("e_score")):
                continue
            if count == 0:  # packed; one rank, so the layer's sizes are whole
                count = module.output_size * module.input_size
            seen[f"{name}.{key}"] = count
    return sum(seen.values())


@pytest.mark.parametrize(
    ("name", "shape"),
    [("mlp.experts.w13_weight_scale", (16,)), ("self_attn.o_proj.weight_scale_inv", (2, 4))],
)
def test_scales_of_quantized_weights_are_left_alone(name: str, shape: tuple[int, ...]) -> None:
    """Zeros, or numbers of their own, would make a layer that vLLM quantized while loading mute or noise."""
    import torch

    from glmlab.live.random_weights import draw

    scale = torch.full(shape, 0.25)
    draw(name, scale, seed=0)
    assert bool((scale == 0.25).all())
    drawn = (-scale).to(torch.float8_e4m3fn)  # by vLLM, around zero, where nothing was quantized
    draw(name, drawn, seed=0)
    assert bool((drawn.float() == 0.25).all())


def test_knobs_of_another_backend_are_not_offered(engine: VllmEngine) -> None:
    backend = engine.state().backend
    status = engine.knobs()["cpu_split_kv"]
    assert status.live is (backend == "CPU_ATTN")
    if not status.live:
        assert "CPU_MLA, not CPU_ATTN" in status.why
        with pytest.raises(KnobError, match="cannot be changed in this engine"):
            engine.apply(cpu_split_kv=False)


def test_tokens_depend_on_the_whole_context(engine: VllmEngine) -> None:
    """vLLM's own dummy weights would repeat one token whatever the prompt."""
    short = engine.measure(Workload(contexts=(40,), new_tokens=16)).points[0]
    long = engine.measure(Workload(contexts=(400,), new_tokens=16)).points[0]
    other = engine.measure(Workload(contexts=(400,), new_tokens=16, seed=1)).points[0]
    assert len({tuple(p.tokens[0]) for p in (short, long, other)}) == 3
    assert all(len(set(p.tokens[0])) > 4 for p in (short, long, other))
