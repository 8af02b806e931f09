"""The bars say what the fit says: in proportion, in words, and red only where something is too much."""

from __future__ import annotations

import re
from typing import Any

import pytest

from glmlab.memory import Fit, fit
from glmlab.recipe import Recipe
from glmlab.widgets.look import is_shown
from glmlab.widgets.memory_panel import MemoryPanel, advice_text, parts_html, picture_html


def found(model: str = "glm-5.1-reap-160", count: int = 4, **changes) -> Fit:
    fields = {"name": "unit", "tensor_parallel": 4, "kv_cache_dtype": "fp8", "max_model_len": 131072}
    return fit(Recipe.parse({**fields, "model": model, **changes}), "rtx-pro-6000", count)


@pytest.fixture(scope="module")
def fitting():
    return found()


@pytest.fixture(scope="module")
def too_large():
    return found("glm-5.1-nvfp4")


@pytest.fixture
def panel():
    return MemoryPanel()


def bars(html: str) -> list[str]:
    return re.findall(r'<div class="glmlab-bar".*?</div>', html)


def widths(bar: str) -> dict[str, float]:
    return {name: float(width) for name, width in re.findall(r'glmlab-(\w+)" style="width:([\d.]+)%', bar)}


def test_a_bar_for_each_gpu_fills_its_width_in_proportion(fitting):
    drawn = bars(picture_html(fitting))
    assert len(drawn) == 4
    shares = widths(drawn[0])
    assert sum(shares.values()) == pytest.approx(100, abs=0.1)
    usable = fitting.gpu.usable_memory_bytes / 1e9
    assert shares["weights"] == pytest.approx(fitting.gb("weights", "scales") / usable * 100, abs=0.1)
    assert shares["kv"] == pytest.approx(fitting.gb("kv") / usable * 100, abs=0.1)
    assert shares["free"] == pytest.approx(fitting.free_bytes / 1e9 / usable * 100, abs=0.1)


def test_a_bar_says_in_words_what_it_shows(fitting):
    [label] = set(re.findall(r'role="img" aria-label="([^"]*)"', picture_html(fitting)))
    assert re.fullmatch(
        r"weights [\d.]+ GB, KV cache [\d.]+ GB, the rest .* [\d.]+ GB, free [\d.]+ GB", label
    )


def test_red_stands_only_where_something_is_too_much_and_with_words(fitting, too_large):
    fine, bad = picture_html(fitting), picture_html(too_large)
    assert "glmlab-over" not in fine
    assert "glmlab-error" not in fine
    assert "Fits 4 x rtx-pro-6000" in fine
    assert f"Does not fit 4 x rtx-pro-6000 by {too_large.short_bytes / 1e9:.1f} GB a GPU" in bad
    assert "too much for the GPU" in bad
    shares = widths(bars(bad)[0])
    assert sum(shares.values()) == pytest.approx(100, abs=0.1)
    assert shares["over"] > 0


def test_numbers_carry_unit_evidence_and_doubt(fitting):
    html = picture_html(fitting)
    assert re.search(r"predicted, ±[\d.]+ GB", html)
    assert f"{fitting.kv_tokens:,} tokens (± {fitting.kv_tokens_plus_minus:,})" in html
    assert f"longest context {fitting.longest_context:,}" in html


def test_gpus_without_a_rank_are_told_and_many_are_not_drawn_one_by_one():
    idle = picture_html(found(count=6))
    assert idle.count("no rank of this recipe uses it") == 2
    many = found("glm-4.7", count=64, tensor_parallel=8, data_parallel=8)
    assert len(bars(picture_html(many))) == 8
    assert "and 56 more like these" in picture_html(many)


def test_the_table_holds_every_part_and_what_is_left(fitting):
    html = parts_html(fitting)
    for part in fitting.parts:
        assert (f"<td>{part.name}</td>" in html) == bool(part.size)
    assert f'<td>free</td><td class="glmlab-number">{fitting.free_bytes / 1e9:.2f}</td>' in html


def test_advice_is_taken_by_a_button_that_names_the_change(panel, too_large):
    taken: list[Any] = []
    panel.on_advice(taken.append)
    panel.show_fit(too_large)
    shown = [slot for slot in panel.slots if is_shown(slot)]
    assert len(shown) == len(too_large.advice)
    for slot, advice in zip(shown, too_large.advice, strict=True):
        assert slot.button.description == f"Apply: {advice_text(advice, too_large)}"
        assert advice.what.partition(":")[0] in slot.text
        slot.button.click()
    assert taken == list(too_large.advice)
    assert "8 GPUs" in " ".join(slot.button.description for slot in shown)


def test_another_fit_takes_the_place_of_the_first(panel, fitting, too_large):
    panel.show_fit(too_large)
    panel.show_fit(fitting)
    assert panel.fit is fitting
    assert sum(is_shown(slot) for slot in panel.slots) == len(fitting.advice)
    assert "Does not fit" not in panel._picture.value


def test_why_there_is_no_fit_is_said_in_its_place(panel, fitting):
    panel.show_fit(fitting)
    panel.say("No GPU <is> chosen")
    assert panel.fit is None
    assert "No GPU &lt;is&gt; chosen" in panel._picture.value
    assert all(not is_shown(slot) for slot in panel.slots)
    assert panel._parts.value == ""
