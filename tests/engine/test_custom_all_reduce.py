"""vLLM's custom all-reduce made anew: calls and their order, with its C++ side played by a list."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("vllm")

import torch.distributed as dist  # noqa: E402
from vllm import _custom_ops as ops  # noqa: E402
from vllm.distributed import parallel_state  # noqa: E402
from vllm.distributed.device_communicators.custom_all_reduce import CustomAllreduce  # noqa: E402

from glmlab.live.custom_all_reduce import CustomAllReduce  # noqa: E402

pytestmark = pytest.mark.engine


@pytest.fixture(autouse=True, scope="module")
def one_rank() -> Iterator[None]:
    """A real group, of one: ranks really ask each other whether all is well."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was called, in order; the object behind ``_ptr`` is 7 at first, then 8."""
    called: list[Any] = []
    asked = dist.all_reduce

    def ask(flag: Any, **options: Any) -> Any:
        called.append("all well?")
        return asked(flag, **options)

    monkeypatch.setattr(dist, "all_reduce", ask)

    def make(meta: list[int], table: Any, rank: int, connected: bool) -> int:
        called.append(("init", meta, table, rank, connected))
        return 8

    monkeypatch.setattr(ops, "dispose", lambda ptr: called.append(("dispose", ptr)))
    monkeypatch.setattr(ops, "init_custom_ar", make)
    monkeypatch.setattr(ops, "register_buffer", lambda ptr, where: called.append(("register", ptr, where)))
    return called


def of_two_ranks(monkeypatch: pytest.MonkeyPatch, calls: list[Any], **fields: Any) -> SimpleNamespace:
    own = SimpleNamespace(
        **{
            "disabled": False,
            "_ptr": 7,
            "meta_ptrs": [1, 2],
            "buffer_ptrs": [3, 4],
            "rank_data": "table",
            "rank": 1,
            "fully_connected": True,
            "mnnvl_multicast_ptr": 0,
            **fields,
        }
    )
    group = SimpleNamespace(device_communicator=SimpleNamespace(ca_comm=own), cpu_group=dist.group.WORLD)
    monkeypatch.setattr(parallel_state, "model_parallel_is_initialized", lambda: True)
    monkeypatch.setattr(parallel_state, "get_tp_group", lambda: group)
    return own


def test_it_is_made_anew_and_then_waits_for_its_peers(
    monkeypatch: pytest.MonkeyPatch, calls: list[Any]
) -> None:
    own = of_two_ranks(monkeypatch, calls)
    CustomAllReduce.captured.append(torch.ones(1))
    with torch.inference_mode():  # as a worker changes its knobs
        CustomAllReduce().renew()
    assert calls == [("dispose", 7), ("init", [1, 2], "table", 1, True), ("register", 8, [3, 4]), "all well?"]
    assert own._ptr == 8
    assert CustomAllReduce.captured == []


def test_buffers_of_multicast_are_registered_again(monkeypatch: pytest.MonkeyPatch, calls: list[Any]) -> None:
    """As ``_init_mnnvl_buffer`` does it: gathers at the start, scatters three stages on."""
    peers = [SimpleNamespace(data_ptr=lambda: 100), SimpleNamespace(data_ptr=lambda: 200)]
    of_two_ranks(monkeypatch, calls, mnnvl_multicast_ptr=9, mnnvl_peer_buffers=peers, mnnvl_buffer_size=10)
    CustomAllReduce().renew()
    assert calls[-3:] == [("register", 8, [100, 200]), ("register", 8, [130, 230]), "all well?"]


def test_nothing_is_closed_twice_where_it_cannot_be_made(
    monkeypatch: pytest.MonkeyPatch, calls: list[Any]
) -> None:
    def refuse(*_: Any) -> int:
        raise RuntimeError("out of memory")

    own = of_two_ranks(monkeypatch, calls)
    monkeypatch.setattr(ops, "init_custom_ar", refuse)
    with pytest.raises(RuntimeError, match="out of memory"):
        CustomAllReduce().renew()
    assert own._ptr == 0
    assert calls == [("dispose", 7), "all well?"]
    with pytest.raises(RuntimeError, match="out of memory"):
        CustomAllReduce().renew()
    assert calls == [("dispose", 7), "all well?", "all well?"]


def rank_of_two(rank: int, store: str, answers: Any) -> None:
    """One of two processes; the first cannot make it anew."""
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    with pytest.MonkeyPatch.context() as patch:
        of_two_ranks(patch, [])
        patch.setattr(ops, "dispose", lambda _: None)
        patch.setattr(ops, "register_buffer", lambda *_: None)
        patch.setattr(ops, "init_custom_ar", lambda *_: 1 // rank)
        try:
            CustomAllReduce().renew()
            answers.put((rank, "went on"))
        except (RuntimeError, ZeroDivisionError) as error:
            answers.put((rank, str(error)))
    dist.destroy_process_group()


def test_a_rank_that_fails_is_not_waited_for(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.Queue()
    ranks = [
        spawn.Process(target=rank_of_two, args=(rank, str(tmp_path / "store"), answers)) for rank in (0, 1)
    ]
    for each in ranks:
        each.start()
    told = dict(answers.get(timeout=120) for _ in ranks)
    for each in ranks:
        each.join(timeout=30)
    assert "division" in told[0]
    assert "another rank could not" in told[1]


@pytest.mark.parametrize("communicator", [None, SimpleNamespace(), SimpleNamespace(ca_comm=None)])
def test_without_one_there_is_nothing_to_do(
    monkeypatch: pytest.MonkeyPatch, calls: list[Any], communicator: Any
) -> None:
    of_two_ranks(monkeypatch, calls)
    parallel_state.get_tp_group().device_communicator = communicator
    reduce = CustomAllReduce()
    reduce.renew()
    assert (reduce.exists, reduce.why_fixed(), calls) == (False, "", [])


def test_a_disabled_one_is_none(monkeypatch: pytest.MonkeyPatch, calls: list[Any]) -> None:
    of_two_ranks(monkeypatch, calls, disabled=True)
    assert not CustomAllReduce().exists


def test_a_version_that_keeps_it_elsewhere_says_so(monkeypatch: pytest.MonkeyPatch, calls: list[Any]) -> None:
    own = of_two_ranks(monkeypatch, calls)
    assert CustomAllReduce().why_fixed() == ""
    del own.meta_ptrs
    monkeypatch.delattr(ops, "dispose")
    why = CustomAllReduce().why_fixed()
    assert "no meta_ptrs, _custom_ops.dispose" in why
    assert "custom_all_reduce: false" in why


def test_the_installed_vllm_has_all_that_is_needed() -> None:
    """Names that ``__init__`` sets, without a GPU to run it on."""
    names = CustomAllreduce.__init__.__code__.co_names
    assert {"_ptr", "meta_ptrs", "buffer_ptrs", "rank_data", "rank", "fully_connected"} <= set(names)
    multicast = CustomAllreduce._init_mnnvl_buffer.__code__.co_names
    assert {"mnnvl_multicast_ptr", "mnnvl_peer_buffers", "mnnvl_buffer_size"} <= set(multicast)
