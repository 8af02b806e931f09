"""Tiles and tables of tiles: text, vLLM's JSON, and what cannot be."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glmlab.errors import RecipeError
from glmlab.recipe import Recipe
from glmlab.tiles import DEFAULT, Tile, TileTable, canonical_tiles

blocks = st.sampled_from([16, 32, 64, 128, 256])
tiles = st.builds(
    Tile,
    blocks,
    blocks,
    blocks,
    st.integers(1, 64),
    st.sampled_from([1, 2, 4, 8, 16]),
    st.integers(1, 8),
)
tables = st.dictionaries(st.integers(1, 8192), tiles, min_size=1, max_size=6).map(TileTable)


@given(tiles)
def test_a_tile_survives_its_text_and_vllms_entry(tile):
    assert Tile.parse(str(tile)) == tile
    assert Tile.from_vllm(tile.to_vllm()) == tile
    assert Tile.from_vllm({**tile.to_vllm(), "SPLIT_K": 1}) == tile


@given(tables)
def test_a_table_survives_its_text_and_its_file(table):
    assert dict(TileTable.parse(str(table))) == dict(table)
    assert dict(TileTable.from_json(table.to_json())) == dict(table)
    assert str(TileTable.parse(str(table))) == str(table)


@given(tiles)
def test_one_tile_for_all_token_counts_is_written_as_that_tile(tile):
    table = TileTable.parse(str(tile))
    assert str(table) == str(tile)
    assert {table.nearest(tokens) for tokens in (1, 7, 4096)} == {tile}
    assert table.to_vllm() == {1: tile.to_vllm()}


@given(tables, st.integers(1, 8192))
def test_nearest_is_the_rule_that_vllm_has_for_the_same_file(table, tokens):
    configs = {int(key): value for key, value in json.loads(table.to_json()).items()}
    vllms = configs[min(configs.keys(), key=lambda count: abs(count - tokens))]  # fused_moe.py
    assert table.nearest(tokens).to_vllm() == vllms


def test_further_keys_reach_every_entry_of_the_file():
    table = TileTable.parse("1: 16x64x128 g1 w4 s3; 64: 64x128x64 g8 w8 s4")
    body = json.loads(table.to_json(SPLIT_K=1))
    assert {entry["SPLIT_K"] for entry in body.values()} == {1}
    assert dict(TileTable.from_json(table.to_json(SPLIT_K=1))) == dict(table)


def test_a_file_of_vllms_own_with_its_remarks_can_be_read():
    text = json.dumps(
        {"triton_version": "3.6.0", "8": {**Tile(16, 64, 128, 1, 4, 3).to_vllm(), "SPLIT_K": 1}}
    )
    assert str(TileTable.from_json(text)) == "8: 16x64x128 g1 w4 s3"


@given(tables)
def test_the_canonical_spelling_is_a_fixed_point(table):
    text = canonical_tiles(str(table))
    assert canonical_tiles(text) == text


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        (" default ", DEFAULT),
        ("64: 64x128x64 g8 w8 s4 ;1:16x64x128   g1 w4 s3;", "1: 16x64x128 g1 w4 s3; 64: 64x128x64 g8 w8 s4"),
        ("  16x64x128 g1  w4 s3 ", "16x64x128 g1 w4 s3"),
    ],
)
def test_spellings_of_one_value_are_one_value(text, canonical):
    assert canonical_tiles(text) == canonical


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("16x64 g1 w4 s3", "expected BLOCK_MxBLOCK_NxBLOCK_K gGROUP wWARPS sSTAGES"),
        ("8x64x128 g1 w4 s3", "block_m = 8: must be a power of two, 16 or more"),
        ("16x48x128 g1 w4 s3", "block_n = 48: must be a power of two"),
        ("16x64x0 g1 w4 s3", "block_k = 0: must be a power of two"),
        ("16x64x128 g0 w4 s3", "group_m = 0: must be 1 or more"),
        ("16x64x128 g1 w3 s3", "num_warps = 3: must be 1, 2, 4, 8 or 16"),
        ("16x64x128 g1 w4 s9", "num_stages = 9: must be 1 to 8"),
        ("0: 16x64x128 g1 w4 s3", "expected a token count of 1 or more before the colon"),
        ("x: 16x64x128 g1 w4 s3", "expected a token count of 1 or more before the colon"),
        ("1: 16x64x128 g1 w4 s3; 1: 16x64x64 g1 w4 s3", "token count 1 is listed twice"),
        ("", "expected BLOCK_MxBLOCK_NxBLOCK_K"),
        (";:", "expected a token count of 1 or more before the colon"),
        (";1:", "expected BLOCK_MxBLOCK_NxBLOCK_K"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(text, says):
    with pytest.raises(ValueError, match=r"\S") as refusal:
        canonical_tiles(text)
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_table_has_one_entry_for_all_or_one_for_each_count():
    tile = Tile.parse("16x64x128 g1 w4 s3")
    with pytest.raises(ValueError, match="either one tile for every token count, or"):
        TileTable({TileTable.EVERY: tile, 4: tile})
    with pytest.raises(ValueError, match="at least one entry"):
        TileTable({})


def test_an_entry_without_a_size_is_refused_by_name():
    with pytest.raises(ValueError, match="num_warps: missing in"):
        Tile.from_vllm({"BLOCK_SIZE_M": 16, "BLOCK_SIZE_N": 64, "BLOCK_SIZE_K": 64, "GROUP_SIZE_M": 1})


def test_a_recipe_holds_the_canonical_text_and_refuses_the_rest():
    recipe = Recipe.parse({"name": "r", "model": "m", "moe_tiles": "64:64x128x64 g8 w8 s4"})
    assert recipe.moe_tiles == "64: 64x128x64 g8 w8 s4"
    assert Recipe.parse({"name": "r", "model": "m", "fp8_gemm_tiles": "default"}).fp8_gemm_tiles == DEFAULT
    with pytest.raises(RecipeError, match=r"moe_tiles = '16x64 g1': .*expected BLOCK_M"):
        Recipe.parse({"name": "r", "model": "m", "moe_tiles": "16x64 g1"})


@pytest.mark.parametrize(
    ("text", "bytes_each", "needs"),
    # What Triton 3.6 allocates for vLLM's fused_moe_kernel, compiled for SM120.
    [
        ("16x64x128 g1 w4 s1", 2, 20480),
        ("16x64x128 g1 w4 s2", 2, 20480),
        ("16x64x128 g1 w4 s4", 2, 61440),
        ("128x128x64 g1 w8 s4", 2, 98304),
        ("128x128x128 g1 w8 s3", 1, 65536),
    ],
)
def test_shared_memory_is_what_triton_takes_for_the_pipeline(text, bytes_each, needs):
    assert Tile.parse(text).shared_memory_bytes(bytes_each, bytes_each) == needs
