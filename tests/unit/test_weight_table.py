"""The weights one by one: their sums are the totals that config.json gives."""

from __future__ import annotations

import pytest

from glmlab.catalog import find_model, list_models
from glmlab.models.shape import ModelShape
from glmlab.models.weight_table import weight_table


def totals(shape: ModelShape) -> tuple[int, int]:
    """Parameters of the model and of its MTP layer, summed weight by weight."""
    table, layers, dense = weight_table(shape), shape.num_hidden_layers, shape.first_k_dense_replace
    counts = (
        (table.attention, layers),
        (table.indexer, shape.indexer_layers),
        (table.dense, dense),
        (table.moe, layers - dense),
        (table.first, 1),
        (table.last, 1),
    )
    model = sum(weight.params * copies for weights, copies in counts for weight in weights)
    mtp = (*table.attention, *table.indexer, *table.moe, *table.mtp)
    return model, shape.num_nextn_predict_layers * sum(weight.params for weight in mtp)


@pytest.mark.parametrize("name", list_models())
def test_the_weights_add_up_to_the_totals(name):
    model = find_model(name)
    assert totals(model.shape) == (model.total_params, model.mtp_params)


@pytest.mark.parametrize(
    "changes",
    [
        {"tie_word_embeddings": True},
        {"n_shared_experts": 0},
        {"first_k_dense_replace": 0},
        {"num_nextn_predict_layers": 0},
    ],
)
def test_they_do_in_variants_too(changes):
    config = find_model("glm-5.1").config
    assert config is not None
    shape = ModelShape.parse(config | changes, "variant")
    assert totals(shape) == (shape.total_params, shape.mtp_params)
