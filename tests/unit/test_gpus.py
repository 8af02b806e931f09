from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from glmlab import gpus, hardware
from glmlab.cli import main
from glmlab.data_folders import PACKAGED_DATA
from glmlab.errors import GpuError, RecipeError
from glmlab.gpus import find_gpu, gpu_of_device, list_gpus
from glmlab.machine.gpu import Gpu
from glmlab.machine.gpu_file import read_gpu_file
from glmlab.machine.nvml import ask_nvml
from tests.nvml_double import H100, PRO_6000, Nvml
from tests.pace import in_recipes

NAMES = (
    "b100", "b200", "h100", "h200", "rtx-5090", "rtx-pro-6000", "rtx-pro-6000-maxq", "rtx-pro-6000-server",
)  # fmt: skip
FIELDS = set(Gpu.model_fields) - {"name", "title", "device_names", "sources", "disagreements", "dense_tflops"}


def device(table: dict[str, Any] | None = None, **changes: Any) -> hardware.Gpu:
    """A card as NVML would tell it."""
    return ask_nvml(Nvml(PRO_6000 if table is None else table)).gpus[0].model_copy(update=changes)


@pytest.fixture
def overlay(tmp_path, monkeypatch):
    """Write a file into the user's own folder of GPUs, made of a packaged one with lines replaced."""
    folder = tmp_path / "gpus"
    folder.mkdir()
    monkeypatch.setenv("GLMLAB_DATA", str(tmp_path))

    def write(name="mine", like="h100", **lines):
        text = (PACKAGED_DATA / "gpus" / f"{like}.yaml").read_text(encoding="utf-8")
        for old, new in lines.get("replaced", {}).items():
            assert old in text
            text = text.replace(old, new, 1)
        path = folder / f"{name}.yaml"
        path.write_text(lines.get("text", text), encoding="utf-8")
        return path

    return write


# ---------------------------------------------------------------------------------- the catalog
def test_the_gpus_of_the_catalog():
    assert list_gpus() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_value_has_its_source(name):
    gpu = find_gpu(name)
    assert gpu.name == name
    assert set(gpu.sources) == FIELDS | {f"dense_tflops.{each}" for each in ("bf16", "fp8", "fp4")}
    assert all(source.strip() for source in gpu.sources.values())
    assert {each.field for each in gpu.disagreements} <= set(gpu.sources)
    # What glmlab computes with is what stands in the field, never the other source's value.
    for each in gpu.disagreements:
        assert each.used == getattr(gpu, each.field.partition(".")[0]) or "." in each.field
        assert each.used != each.says


# The reference's table; memory in the driver's own count.
@pytest.mark.parametrize(
    "row",
    [
        ("rtx-pro-6000", "sm120", 188, 97_887, 1792, 101_376, 128, "pcie", 600),
        ("rtx-pro-6000-maxq", "sm120", 188, 97_887, 1792, 101_376, 128, "pcie", 300),
        ("rtx-pro-6000-server", "sm120", 188, 97_887, 1597, 101_376, 128, "pcie", 600),
        ("rtx-5090", "sm120", 170, 32_607, 1792, 101_376, 96, "pcie", 575),
        ("b200", "sm100", 148, 183_359, 7672, 232_448, 126.5, "nvlink", 1000),
        ("h100", "sm90", 132, 81_559, 3350, 232_448, 50, "nvlink", 700),
        ("h200", "sm90", 132, 143_771, 4800, 232_448, 60, "nvlink", 700),
    ],
)
def test_the_table_of_the_reference(row):
    name, architecture, sms, memory_mib, bandwidth, smem, l2_mib, link, power = row
    gpu = find_gpu(name)
    assert (gpu.architecture, gpu.sms) == (architecture, sms)
    assert gpu.memory_bytes == memory_mib * 2**20
    assert gpu.memory_gb == pytest.approx(memory_mib * 2**20 / 1e9)
    assert gpu.bandwidth_gb_s == bandwidth
    assert gpu.shared_memory_per_block_bytes == smem
    assert gpu.l2_bytes == l2_mib * 2**20
    assert (gpu.link, gpu.power_w) == (link, power)
    assert (gpu.pcie_generation, gpu.pcie_lanes) == (5, 16)


def test_what_is_usable_is_what_torch_sees():
    for name in ("rtx-pro-6000", "rtx-pro-6000-maxq", "rtx-pro-6000-server"):
        assert find_gpu(name).usable_memory_bytes / 2**30 == pytest.approx(94.97, abs=0.005)
    gib: float
    for name, gib in (("h100", 79.19), ("h200", 139.80), ("b200", 178.35), ("rtx-5090", 31.36)):
        assert find_gpu(name).usable_memory_bytes / 2**30 == pytest.approx(gib, abs=0.005)


def test_rates_and_what_is_not_known():
    assert find_gpu("rtx-pro-6000").dense_tflops == {"bf16": 503.8, "fp8": 1007.6, "fp4": 2015.2}
    assert find_gpu("rtx-pro-6000").loaded_bandwidth_gb_s == 1711
    assert find_gpu("rtx-pro-6000-maxq").loaded_bandwidth_gb_s is None
    assert find_gpu("h100").dense_tflops == {"bf16": 989, "fp8": 1979, "fp4": None}
    assert find_gpu("h100").nvlink_gb_s == 900
    assert find_gpu("rtx-5090").nvlink_gb_s is None


def test_disagreements_are_kept_and_not_used():
    said = {each.field: each for each in find_gpu("rtx-pro-6000").disagreements}
    assert (said["l2_bytes"].used, said["l2_bytes"].says) == (128 * 2**20, 16 * 2**20)
    assert "wiki" in said["l2_bytes"].source
    assert str(said["l2_bytes"]).startswith("l2_bytes = 134,217,728: 0xSero")
    assert [each.says for each in find_gpu("b200").disagreements if each.field == "bandwidth_gb_s"] == [
        8000,
        7700,
    ]
    assert [(e.field, e.used, e.says) for e in find_gpu("rtx-5090").disagreements] == [
        ("dense_tflops.fp8", 419, 838)
    ]


def test_a_gpu_is_frozen_and_shows_itself():
    gpu = find_gpu("rtx-pro-6000")
    with pytest.raises(ValueError, match="frozen"):
        setattr(gpu, "sms", 3)  # noqa: B010 (mypy knows better, too)
    html = gpu._repr_html_()
    assert "shared memory per block (bytes)" in html
    assert "101,376" in html
    assert "Where sources disagree" in html
    assert "Where sources disagree" not in find_gpu("b100")._repr_html_()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("rtx-pro-600", "gpu = 'rtx-pro-600': no such GPU; did you mean rtx-pro-6000 or "),
        ("H100", "gpu = 'H100': no such GPU; did you mean h100"),
        ("", "gpu = '': no such GPU; known: b100, "),
        ("mi300x", "gpu = 'mi300x': no such GPU; known: b100, b200, h100, h200, rtx-5090, "),
        ("../gpus/h100", "gpu = '../gpus/h100': no such GPU"),
        (None, "gpu = None: no such GPU"),
    ],
)
def test_an_unknown_gpu_is_refused_with_the_nearest_names(name, said):
    with pytest.raises(GpuError) as error:
        find_gpu(name)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


def test_a_lookup_costs_less_than_reading_a_few_recipes():
    find_gpu("rtx-pro-6000")
    assert len({id(find_gpu("rtx-pro-6000")) for _ in range(100)}) == 1
    assert in_recipes(lambda: [find_gpu("rtx-pro-6000") for _ in range(100)]) / 100 < 5


# ---------------------------------------------------------------------------------- the user's own
def test_a_users_file_is_laid_over_the_packaged_ones(overlay):
    overlay(replaced={"value: 132": "value: 114"})
    overlay("h200", like="h200", replaced={"value: 4800": "value: 4000"})
    assert find_gpu("mine").sms == 114
    assert find_gpu("h200").bandwidth_gb_s == 4000
    assert find_gpu("h100").sms == 132
    assert set(list_gpus()) == {*NAMES, "mine"}


def test_an_edited_file_is_read_again(overlay):
    path = overlay()
    assert find_gpu("mine").sms == 132
    overlay(replaced={"value: 132": "value: 99"})
    os.utime(path, ns=(1, 1))  # a clock too coarse for two writes would hide the second
    assert find_gpu("mine").sms == 99


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("value: 132", "value: -1", "line 6: sms = -1: Input should be greater than or equal to 1"),
        ("value: 132", "value: true", "line 6: sms = True: Input should be a valid integer"),
        ("value: 132", "value: '132'", "line 6: sms = '132': Input should be a valid integer"),
        ("value: 132", "vaule: 132", "line 6: sms.vaule: unknown key; did you mean value"),
        ("sms:", "smss:", "line 5: smss: unknown key; did you mean sms"),
        ("85_520_809_984", "80", "line 12: memory_bytes = 80: Input should be greater than"),
        ("85_029_027_840", "85_600_000_000", "line 15: usable_memory_bytes = 85,600,000,000: more"),
        ("value: 3350", "value: .nan", "line 18: bandwidth_gb_s = nan: Input should be a finite number"),
        ("value: 3350", "value: 1e9", "line 18: bandwidth_gb_s = 1000000000.0: Input should be less than"),
        (
            'value: null\n  source: "not known"',
            "value: 3351\n  source: mine",
            "line 21: loaded_bandwidth_gb_s = 3,351: more than bandwidth_gb_s = 3,350",
        ),
        ('value: "9.0"', "value: 9.0", "line 9: capability = 9.0: Input should be a valid string"),
        ("value: 900", "value: null", "nvlink_gb_s = None: with link = nvlink expected a number"),
        ("  fp4:", "  fp5:", "dense_tflops.fp5: unknown key; did you mean fp8 or fp4"),
        ("value: nvlink", "value: sli", "link = 'sli': Input should be 'pcie' or 'nvlink'"),
        ("  source: \"NVIDIA H100 datasheet, SXM\"\n", "", "line 5: sms.source: missing"),
        ("  source: \"NVIDIA H100 datasheet, SXM\"\n", "  source: 3\n", "line 7: sms.source: expected where"),
        ("\nsms:", "\nsms: 132\nl2_bytes:", "not valid YAML"),
        ("title: NVIDIA H100 SXM 80 GB\n", "", "title: missing"),
        ("device_names:\n  - NVIDIA H100 80GB HBM3", "device_names: H100", "line 3: device_names = 'H100'"),
        ("device_names:", "device_names: [", "not valid YAML"),
    ],
)  # fmt: skip
def test_an_error_names_file_and_line(overlay, old, new, said):
    path = overlay(replaced={old: new})
    with pytest.raises(GpuError) as error:
        find_gpu("mine")
    message = str(error.value)
    assert message.startswith(str(path))
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize("text", ["", "- a\n", "just text\n", "1: 2\n"])
def test_a_file_that_is_no_gpu_is_refused(overlay, text):
    path = overlay(text=text)
    with pytest.raises(GpuError, match=str(path)):
        find_gpu("mine")


def test_disagreements_of_a_users_file_are_checked_too(overlay):
    path = overlay(
        replaced={"value: 132\n": "value: 132\n  disagreements:\n    - value: 114\n      sorce: a review\n"}
    )
    with pytest.raises(
        GpuError, match=r"line 9: sms\.disagreements\.0\.sorce: unknown key; did you mean source"
    ):
        find_gpu("mine")
    assert path.is_file()


def test_a_name_that_nobody_could_type_and_a_missing_folder(overlay, monkeypatch):
    overlay("My Card")
    with pytest.raises(GpuError, match="'My Card' cannot be a GPU's name"):
        list_gpus()
    monkeypatch.setenv("GLMLAB_DATA", "/nowhere")
    with pytest.raises(RecipeError, match="GLMLAB_DATA"):
        find_gpu("h100")


# ---------------------------------------------------------------------------------- this machine's
@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "rtx-pro-6000"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "rtx-pro-6000-maxq"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx-pro-6000-server"),
        ("rtx pro 6000  blackwell server edition", "rtx-pro-6000-server"),
        ("NVIDIA GeForce RTX 5090", "rtx-5090"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA B200", "b200"),
        ("NVIDIA B100", "b100"),
        # Others, whose names only begin alike.
        ("NVIDIA GeForce RTX 5090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 5090 D", None),
        ("NVIDIA RTX PRO 6000D Blackwell Workstation Edition", None),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA H200 NVL", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA A100-SXM4-80GB", None),
    ],
)
def test_a_card_is_found_by_the_drivers_name(told, name):
    found = gpu_of_device(device({"nvmlDeviceGetName": told}))
    assert (found and found.name) == name


def test_what_the_driver_says_wins():
    found = gpu_of_device(
        device(memory_bytes=100_000_000_000, pcie_generation=4, pcie_width=8, power_limit_w=450.0)
    )
    known = find_gpu("rtx-pro-6000")
    assert found is not None
    assert found.memory_bytes == 100_000_000_000
    assert found.usable_memory_bytes == 100_000_000_000 - (known.memory_bytes - known.usable_memory_bytes)
    assert (found.pcie_generation, found.pcie_lanes, found.power_w) == (4, 8, 450.0)
    changed = {
        "memory_bytes",
        "usable_memory_bytes",
        "pcie_generation",
        "pcie_lanes",
        "power_w",
        "bandwidth_gb_s",
    }
    assert {key for key, source in found.sources.items() if source.startswith("NVML")} == changed
    assert known.sources["memory_bytes"].startswith("nvidia-smi")


def test_bandwidth_follows_from_the_drivers_clock_and_bus():
    found = gpu_of_device(device(memory_clock_max_mhz=12_481))
    assert found is not None
    assert found.bandwidth_gb_s == pytest.approx(1597.6)
    assert found.loaded_bandwidth_gb_s == pytest.approx(1597.6)
    hopper = gpu_of_device(device(H100))
    assert hopper is not None
    assert hopper.bandwidth_gb_s == pytest.approx(3352.3)


def test_a_clock_that_cannot_be_is_kept_as_a_disagreement():
    name = "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition"
    found = gpu_of_device(device(name=name, memory_clock_max_mhz=15_865))
    assert found is not None
    assert found.bandwidth_gb_s == 1792
    assert found.disagreements[-1].says == pytest.approx(2030.7)
    assert len(find_gpu("rtx-pro-6000-maxq").disagreements) == len(found.disagreements) - 1


def test_a_card_that_tells_only_its_name_is_the_catalogs():
    found = gpu_of_device(device({"nvmlDeviceGetName": "NVIDIA H200"}))
    assert found == find_gpu("h200")


def test_a_split_card_is_none_of_the_catalog():
    assert gpu_of_device(device(mig_enabled=True)) is None


# ---------------------------------------------------------------------------------- the command
def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main(["gpus", *arguments])
    printed = capsys.readouterr()
    return stopped.value.code, printed.out, printed.err


@pytest.fixture
def four_cards(monkeypatch):
    seen = ask_nvml(Nvml(PRO_6000, PRO_6000, PRO_6000, PRO_6000))
    monkeypatch.setattr(hardware, "ask_nvml", lambda nvml: seen)


def test_the_table_has_this_machine_on_top(capsys, four_cards):
    code, out, err = run(capsys)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("this machine")
    assert sum("GPU " in line and line.rstrip().endswith("rtx-pro-6000") for line in lines[:8]) == 4
    assert "0-1, 0-2, 0-3, 1-2, 1-3, 2-3: yes, over PCIe, host bridge" in out
    assert all(any(line.startswith(f"{name} ") for line in lines) for name in NAMES)


def test_the_table_as_json(capsys, four_cards):
    code, out, _ = run(capsys, "--json")
    printed = json.loads(out)
    assert code == 0
    assert [gpu["name"] for gpu in printed["gpus"]] == list(NAMES)
    assert [gpu["catalog"] for gpu in printed["machine"]["gpus"]] == ["rtx-pro-6000"] * 4
    assert len(printed["machine"]["pairs"]) == 6


def test_one_gpu_in_full(capsys):
    code, out, _ = run(capsys, "rtx-pro-6000")
    assert code == 0
    assert "101,376" in out
    assert "NVIDIA/cutlass #2692" in out
    assert "where sources disagree" in out
    code, out, _ = run(capsys, "rtx-pro-6000", "--json")
    printed = json.loads(out)
    assert (printed["name"], printed["architecture"], printed["sms"]) == ("rtx-pro-6000", "sm120", 188)
    assert printed["disagreements"][-1]["says"] == 16 * 2**20


def test_an_unknown_name_ends_with_2_and_one_line(capsys, overlay):
    assert run(capsys, "rtx-6000")[0] == 2
    code, out, err = run(capsys, "H100")
    assert (code, out) == (2, "")
    assert err.startswith("glmlab: gpu = 'H100': no such GPU; did you mean h100")
    assert err.count("\n") == 1
    overlay(replaced={"value: 132": "value: none"})
    code, out, err = run(capsys)
    assert (code, out) == (2, "")
    assert "mine.yaml line 6: sms = 'none'" in err


def test_nothing_of_the_packaged_folder_is_read_twice(monkeypatch):
    gpus._read.cache_clear()
    read = []

    def counted(path: Path) -> Gpu:
        read.append(path)
        return read_gpu_file(path)

    monkeypatch.setattr(gpus, "read_gpu_file", counted)
    for _ in range(3):
        for name in NAMES:
            find_gpu(name)
    assert len(read) == len(NAMES)
