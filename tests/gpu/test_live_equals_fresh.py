"""An engine that was changed live to a value is the engine that was started with it."""

from __future__ import annotations

import gc
import statistics
from typing import Literal

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("needs an NVIDIA GPU", allow_module_level=True)

from glmlab import Recipe, Workload, start  # noqa: E402
from glmlab.measurement import Measurement  # noqa: E402

pytestmark = pytest.mark.gpu

TWIN = Recipe(
    name="twin",
    model="glm-4.7@tp4-l2",
    weights="random",
    kv_cache_dtype="fp8",
    attention_backend="TRITON_ATTN",
    moe_backend="triton",
    max_model_len=16_640,
    max_num_seqs=4,
    cudagraph_capture_sizes=(1, 2, 4),
    kv_cache_bytes=200_000_000,
)
WORK = Workload(contexts=(16_384,), batch_sizes=(1,), new_tokens=48)


def times(measurement: Measurement) -> tuple[float, float]:
    """Device and wall time of a step, in ms."""
    point = measurement.points[0]
    assert point.device_step_ms
    return statistics.median(point.device_step_ms), point.tpot_ms


@pytest.mark.parametrize(("home", "values"), [("kernel", (1, 8, 32, 64, 128)), ("child", (8, 64))])
def test_live_equals_fresh(home: Literal["kernel", "child"], values: tuple[int, ...]) -> None:
    live: dict[int, list[tuple[float, float]]] = {value: [] for value in values}
    tokens: dict[int, Measurement] = {}
    with start(TWIN, home=home) as engine:
        engine.measure(WORK)
        frozen = gc.get_freeze_count()
        for _ in range(3):
            for value in values:
                report = engine.apply(kv_splits=value)
                measured = engine.measure(WORK)
                live[value].append(times(measured))
                tokens[value] = measured
                print(f"live {value:4} in {report.seconds:.2f} s")
        if home == "kernel":
            print(f"frozen objects {frozen} at the start, {gc.get_freeze_count()} after 15 changes")
            assert gc.get_freeze_count() > 0.9 * frozen
    for value in values:
        with start(TWIN.replace(kv_splits=value), home=home) as engine:
            assert engine.state().knobs["kv_splits"] == value
            engine.measure(WORK)
            visits = [engine.measure(WORK) for _ in range(3)]
            assert engine.state().workers[0].used["kv_splits"] == value
        fresh = [statistics.median(column) for column in zip(*map(times, visits), strict=True)]
        found = [statistics.median(column) for column in zip(*live[value], strict=True)]
        print(
            f"{value:4} splits: device live {found[0]:.4f} fresh {fresh[0]:.4f} ms"
            f" ({found[0] / fresh[0] - 1:+.2%}), wall live {found[1]:.3f} fresh {fresh[1]:.3f} ms"
        )
        assert abs(found[0] / fresh[0] - 1) < 0.01
        assert found[1] / fresh[1] < 1.25
        assert tokens[value].same_tokens(visits[0]) == 1.0
