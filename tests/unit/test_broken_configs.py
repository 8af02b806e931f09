"""config.json files that are broken, or nearly."""

from __future__ import annotations

import json

import pytest

from glmlab.catalog import find_model
from glmlab.errors import RecipeError


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "not valid JSON"),
        ('{"model_type": ["a"]}', "model_type = ['a']: not a GLM"),
        ('{"model_type": {"a": 1}}', "not a GLM"),
        ('{"vocab_size": ' + "1" * 5000 + "}", "cannot be read"),
    ],
)
def test_a_broken_config_is_one_line(tmp_path, text, said):
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as error:
        find_model(tmp_path)
    assert said in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_config_with_a_byte_order_mark_is_read(tmp_path):
    text = json.dumps(find_model("glm-4.7").config)
    (tmp_path / "config.json").write_text(text, encoding="utf-8-sig")
    assert find_model(tmp_path).total_params == find_model("glm-4.7").total_params
