"""What a CPU engine has no room for is refused before anything is loaded."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from glmlab.engines import room_here
from glmlab.errors import InputError
from glmlab.recipe_book import find_recipe


def test_weights_beyond_all_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SimpleNamespace(total=25_300_000_000)
    monkeypatch.setattr("glmlab.engines.room_here.psutil.virtual_memory", lambda: memory)
    with pytest.raises(InputError, match=r"weights of 30\d GB do not fit this machine's memory of 25\.3 GB"):
        room_here.check_room(find_recipe("glm-5.1-reap-160-vllm-sparse"))


def test_a_tiny_model_has_room() -> None:
    room_here.check_room(find_recipe("tiny-glm4-moe"))


def test_what_is_not_known_is_not_refused() -> None:
    room_here.check_room(find_recipe({"name": "of-the-hub", "model": "somebody/some-glm"}))
