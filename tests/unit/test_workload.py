from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glmlab.errors import WorkloadError
from glmlab.workload import Workload

WORKLOADS = st.builds(
    Workload,
    contexts=st.lists(st.integers(1, 10_000), min_size=1, max_size=5, unique=True).map(tuple),
    batch_sizes=st.lists(st.integers(1, 64), min_size=1, max_size=4, unique=True).map(tuple),
    new_tokens=st.integers(2, 100),
    warmup_tokens=st.integers(1, 100),
    seed=st.integers(0, 2**31),
    cold_prefill=st.booleans(),
    most_tokens=st.none() | st.integers(64 * 10_100, 10**7),  # room for any of these
)


@given(WORKLOADS)
def test_a_workload_survives_json(workload):
    again = Workload.model_validate_json(workload.model_dump_json())
    assert again == workload
    assert again.fingerprint == workload.fingerprint


def test_a_single_number_stands_for_a_list_of_one():
    assert Workload.parse({"contexts": 64, "batch_sizes": 2}).points == ((64, 2),)


def test_points_go_from_short_to_long_and_from_few_to_many():
    points = Workload(contexts=(256, 64), batch_sizes=(4, 1)).points
    assert points == ((64, 1), (64, 4), (256, 1), (256, 4))


@pytest.mark.parametrize(("new", "warmup", "longest"), [(32, 4, 288), (2, 40, 296)])
def test_the_longest_sequence_counts_whichever_pass_is_longer(new, warmup, longest):
    assert Workload(contexts=(64, 256), new_tokens=new, warmup_tokens=warmup).longest == longest


# ------------------------------------------------------------------------------ most tokens
def test_points_beyond_the_limit_are_left_out_with_their_outputs_counted():
    work = Workload(contexts=(256, 1024), batch_sizes=(1, 8), new_tokens=32, most_tokens=8 * (256 + 32))
    assert work.points == ((256, 1), (256, 8), (1024, 1))
    room = work.model_copy(update={"most_tokens": 8 * (1024 + 32)})
    assert room.points == ((256, 1), (256, 8), (1024, 1), (1024, 8))
    assert room.model_copy(update={"warmup_tokens": 33}).points == room.points[:-1]


@pytest.mark.parametrize(
    ("limit", "line"),
    [
        (4127, "contexts: 4096 has no point within most_tokens = 4127; its smallest is 4128 tokens"),
        (287, "contexts: 256 has no point within most_tokens = 287; its smallest is 288 tokens"),
        (0, "most_tokens"),
        ("many", "most_tokens"),
    ],
)
def test_a_limit_that_leaves_a_context_without_a_point_is_refused(limit, line):
    with pytest.raises(WorkloadError, match=line):
        Workload.parse({"contexts": [256, 4096], "batch_sizes": [1, 8], "most_tokens": limit})


def test_a_limit_that_leaves_a_batch_size_without_a_point_is_refused():
    with pytest.raises(WorkloadError, match="batch_sizes: 64 has no point within most_tokens = 9000"):
        Workload.parse({"contexts": [256, 4096], "batch_sizes": [1, 64], "most_tokens": 9000})


def test_workloads_without_a_limit_are_stored_as_before_there_was_one():
    assert Workload().fingerprint == "053e47cad672"
    assert "most_tokens" not in Workload().model_dump(mode="json")
    assert Workload(most_tokens=9999).model_dump(mode="json")["most_tokens"] == 9999
    assert Workload(most_tokens=9999).fingerprint != Workload().fingerprint


# ------------------------------------------------------------------------------ prompts
def test_prompts_are_the_same_in_every_trial_and_process():
    assert Workload(contexts=(4,), seed=1).prompt(0, 4, 1000) == [691, 225, 908, 201]


def test_a_shorter_context_is_the_beginning_of_a_longer_one():
    workload = Workload(contexts=(64, 256))
    assert workload.prompt(0, 256, 1000)[:64] == workload.prompt(0, 64, 1000)


def test_requests_of_a_batch_share_no_prefix():
    workload = Workload(contexts=(64,))
    starts = [tuple(workload.prompt(index, 64, 151_552)[:4]) for index in range(32)]
    assert len(set(starts)) == 32


def test_another_seed_gives_other_prompts():
    assert Workload(seed=1).prompt(0, 64, 1000) != Workload(seed=2).prompt(0, 64, 1000)


def test_a_caller_who_changes_a_prompt_changes_only_his_own():
    workload = Workload(contexts=(8,))
    mine = workload.prompt(0, 8, 1000)
    mine[0] = -1
    assert workload.prompt(0, 8, 1000)[0] >= 3


@given(st.integers(4, 300), st.integers(0, 10))
def test_prompts_hold_no_special_tokens_and_none_beyond_the_vocabulary(vocab_size, index):
    assert all(3 <= token < vocab_size for token in Workload(contexts=(50,)).prompt(index, 50, vocab_size))


def test_a_vocabulary_of_special_tokens_only_is_refused():
    with pytest.raises(WorkloadError, match=r"^vocab_size = 3: must exceed 3$"):
        Workload().prompt(0, 4, 3)


# ------------------------------------------------------------------------------ refusals
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"contexts": []}, "contexts: is empty"),
        ({"contexts": [64, 64]}, "contexts: 64 is listed twice"),
        ({"batch_sizes": [2, 1, 2]}, "batch_sizes: 2 is listed twice"),
        ({"contexts": [0]}, "contexts.0 = 0: "),
        ({"contexts": [True]}, "contexts.0 = True: "),
        ({"batch_sizes": [1.0]}, "batch_sizes.0 = 1.0: "),
        ({"batch_sizes": True}, "batch_sizes = True: "),
        ({"new_tokens": 1}, "new_tokens = 1: "),
        ({"new_tokens": True}, "new_tokens = True: "),
        ({"seed": -1}, "seed = -1: "),
        ({"cold_prefill": "yes"}, "cold_prefill = 'yes': "),
        ({"weights": {128: 1}}, "weights.128: is not among contexts = [256]"),
        ({"weights": {256: -1}}, "weights.256 = -1: "),
        ({"weights": {256: 0}}, "at least one context must weigh more than 0"),
        ({"context": [64]}, "context = [64]: unknown key"),
    ],
)
def test_a_workload_that_cannot_be_is_refused_in_one_line(fields, said):
    with pytest.raises(WorkloadError) as error:
        Workload.parse(fields)
    message = str(error.value)
    assert said in message
    assert message.startswith("workload: ")
    assert "\n" not in message


def test_what_is_no_mapping_is_no_workload():
    with pytest.raises(WorkloadError, match=r"^workload: expected keys and values, found a list$"):
        Workload.parse([64])


# ------------------------------------------------------------------------------ weights, fingerprint
def test_contexts_that_are_not_named_weigh_one():
    workload = Workload(contexts=(64, 256), weights={256: 3})
    assert (workload.weight(64), workload.weight(256)) == (1.0, 3.0)


@pytest.mark.parametrize(
    "change",
    [
        {"contexts": (64,)}, {"batch_sizes": (2,)}, {"new_tokens": 8}, {"warmup_tokens": 8},
        {"seed": 1}, {"cold_prefill": True}, {"weights": {256: 2}},
    ],
)  # fmt: skip
def test_every_field_changes_the_fingerprint(change):
    assert Workload(**change).fingerprint != Workload().fingerprint
