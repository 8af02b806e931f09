"""Recordings as files: written, read back, found by name; and every way in which one is refused."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from glmlab.errors import RecordingError
from glmlab.recorded import (
    RecordingWriter,
    list_recordings,
    load_recording,
    read_header,
    read_recording,
    salvage_recording,
)
from tests.recordings import GRID, record, recording
from tests.studies import ROOT


@pytest.fixture
def path(tmp_path):
    return tmp_path / "grid.jsonl"


@pytest.fixture
def lines(path):
    record(path, visits=2)
    return path.read_text().splitlines()


def body(line: str) -> Any:
    return json.loads(line)


def written(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


# ------------------------------------------------------------------------------ the writer
def test_the_writer_refuses_what_the_reader_would(tmp_path, lines, path):
    found = read_recording(path)
    measured = found.visits[0].measurement
    with RecordingWriter(tmp_path / "new.jsonl", found.header) as writer:
        for knobs, message in (
            ({"cpu_split_kv": True}, "knobs.max_num_seqs: missing"),
            ({**GRID[0], "block_size": 1}, "knobs.block_size: unknown here"),
            ({**GRID[0], "max_num_seqs": 5}, "knobs.max_num_seqs = 5: the header lists 4, 8, 16"),
            ({**GRID[0], "cpu_split_kv": 1}, "knobs.cpu_split_kv = 1: the header lists true, false"),
        ):
            with pytest.raises(RecordingError) as error:
                writer.visit(knobs=knobs, apply_s=0.1, measurement=measured)
            assert message in str(error.value)
        replayed = measured.model_copy(update={"evidence": "replayed"})
        with pytest.raises(RecordingError, match="only what was measured can be recorded"):
            writer.visit(knobs=GRID[0], apply_s=0.1, measurement=replayed)
        writer.visit(knobs=dict(reversed(GRID[0].items())), apply_s=0.1, measurement=measured)
        writer.failed(GRID[1], "two\nlines")
    again: Any = read_recording(tmp_path / "new.jsonl")
    assert again.visits[0].knobs == GRID[0]
    assert again.failure_of(GRID[1]).error == "two lines"


def test_a_file_is_never_written_over(path, lines):
    header = read_header(path)
    with pytest.raises(RecordingError, match="exists already; name a new file"):
        RecordingWriter(path, header)
    with pytest.raises(RecordingError, match=r"expected a name that ends in \.jsonl or \.jsonl\.gz"):
        RecordingWriter(path.with_suffix(".json"), header)
    with pytest.raises(RecordingError, match="cannot be written"):
        RecordingWriter(path.parent / "missing" / "a.jsonl", header)
    assert path.read_text().splitlines() == lines


# ------------------------------------------------------------------------------ the reader
def test_gzip_changes_nothing_but_the_size(tmp_path, path, lines):
    zipped = tmp_path / "grid.jsonl.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    plain, packed = read_recording(path), read_recording(zipped)
    assert packed.fingerprint == plain.fingerprint
    assert packed.visits == plain.visits
    assert read_header(zipped) == plain.header


def broken(change: Any) -> Any:
    """A named way to damage one line of a recording, given as its parsed bodies."""
    return pytest.param(change, id=change.__name__)


def newer(rows):
    rows[0]["schema_version"] = 2
    return ":1: schema_version = 2: this glmlab reads up to 1; upgrade glmlab"


def no_header(rows):
    del rows[0]
    return ":1: is no header of a recording"


def unknown_header_key(rows):
    rows[0]["colour"] = "red"
    return ":1: colour = 'red': unknown key"


def unknown_knob_in_the_header(rows):
    rows[0]["knobs"]["kv_split"] = [1]
    return ":1: knobs.kv_split: no such knob; did you mean kv_splits"


def rebuild_knob_in_the_header(rows):
    rows[0]["knobs"]["block_size"] = [32]
    return ":1: knobs.block_size: needs a new engine"


def knob_that_was_not_live(rows):
    rows[0]["knob_status"]["cpu_split_kv"]["live"] = False
    return ":1: knob_status.cpu_split_kv: must say live"


def bad_recipe(rows):
    rows[0]["recipe"]["block_size"] = -1
    return ":1: recipe.block_size = -1"


def bad_date(rows):
    rows[0]["recorded_on"] = "last week"
    return ":1: recorded_on = 'last week'"


def unknown_knob(rows):
    rows[3]["knobs"]["cpu_split"] = True
    return ":4: knobs.cpu_split: unknown here; did you mean cpu_split_kv"


def unlisted_value(rows):
    rows[3]["knobs"]["max_num_seqs"] = 5
    return ":4: knobs.max_num_seqs = 5: the header lists 4, 8, 16"


def missing_knob(rows):
    del rows[3]["knobs"]["max_num_seqs"]
    return ":4: knobs.max_num_seqs: missing"


def doubled_visit(rows):
    rows[4] = {**rows[3], "order": 3}
    return "is there twice"


def doubled_line(rows):
    rows.insert(4, rows[3])
    return ":5: order = 2: expected 3; a line is missing or doubled"


def missing_line(rows):
    del rows[4]
    return ":5: order = 4: expected 3"


def later_visit_first(rows):
    rows[1]["visit"] = 1
    return "comes before visit 0"


def other_kind(rows):
    rows[2]["kind"] = "note"
    return ":3: kind = 'note': expected visit or failed"


def negative_cost(rows):
    rows[2]["apply_s"] = -1
    return ":3: apply_s = -1"


def unknown_key(rows):
    rows[2]["colour"] = "red"
    return ":3: colour = 'red': unknown key"


def missing_point(rows):
    del rows[2]["measurement"]["points"][0]
    return ":3: measurement: context 64, batch 1 was not measured"


def replayed_evidence(rows):
    rows[2]["measurement"]["evidence"] = "replayed"
    return ":3: measurement.evidence = 'replayed': only what was measured can be recorded"


def no_number(rows):
    rows[2]["apply_s"] = float("nan")
    return ":3: not valid JSON, NaN is no number"


def no_visit(rows):
    del rows[1:]
    return "holds no visit"


@pytest.mark.parametrize(
    "change",
    [
        broken(change)
        for change in (
            newer, no_header, unknown_header_key, unknown_knob_in_the_header, rebuild_knob_in_the_header,
            knob_that_was_not_live, bad_recipe, bad_date, unknown_knob, unlisted_value, missing_knob,
            doubled_visit, doubled_line, missing_line, later_visit_first, other_kind, negative_cost,
            unknown_key, missing_point, replayed_evidence, no_number, no_visit,
        )
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused_in_one_line_that_names_file_and_line(path, lines, change):
    rows = [body(line) for line in lines]
    message = change(rows)
    written(path, rows)
    with pytest.raises(RecordingError) as error:
        read_recording(path)
    assert message in str(error.value)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_a_last_line_that_is_cut_off_is_refused_and_can_be_left_out(tmp_path, path, lines):
    path.write_text(path.read_text()[:-50])
    with pytest.raises(RecordingError, match=rf"{path.name}:13: is cut off, .*salvage_recording"):
        read_recording(path)
    assert salvage_recording(path, tmp_path / "saved.jsonl") == 12
    assert len(read_recording(tmp_path / "saved.jsonl").visits) == 11


def test_a_broken_line_in_the_middle_is_no_cut_off_one(path, lines):
    written(path, [*lines[:4], lines[4][:30], *lines[5:]])
    with pytest.raises(RecordingError, match=r":5: not valid JSON"):
        read_recording(path)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl", b"\xff\xfe", "cannot be read"),
        ("a.jsonl.gz", b"plain text", "cannot be read"),
        ("a.jsonl", b"[1]\n", ":1: expected an object"),
    ],
)
def test_what_is_no_recording_at_all_is_refused(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(RecordingError, match=message):
        read_recording(tmp_path / name)


# ------------------------------------------------------------------------------ by name
def test_recordings_are_found_by_name_in_the_users_folder(tmp_path, monkeypatch, path, lines):
    folder = tmp_path / "facts" / "recorded"
    folder.mkdir(parents=True)
    (folder / "mine.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    (folder / "README.md").write_text("no recording")
    monkeypatch.setenv("GLMLAB_DATA", str(folder.parent))
    assert "mine" in list_recordings()
    assert "README" not in list_recordings()
    assert load_recording("mine").visits == read_recording(path).visits
    with pytest.raises(
        RecordingError, match=r"recording = 'mime': no such recording or file; did you mean mine"
    ):
        load_recording("mime")


def test_a_notebook_shows_what_a_recording_is(path):
    found = recording(path, visits=2, title="split <KV>")
    assert "split &lt;KV&gt;" in found._repr_html_()
    assert "cpu_split_kv: true, false" in found._repr_html_()
    assert "6 points, 12 visits" in repr(found)


def test_packaged_recordings_are_whole_and_bear_the_name_of_their_file():
    for name in list_recordings():
        assert load_recording(name).name == name


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_git_does_not_ignore_recordings_so_that_they_ship(name):
    asked = subprocess.run(
        ["git", "check-ignore", "-q", f"glmlab/data/recorded/{name}"], cwd=ROOT, check=False
    )
    assert asked.returncode == 1  # 0 would mean ignored
