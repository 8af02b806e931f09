"""``glmlab tune`` on the real engine: killed, interrupted, continued, shown, exported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from glmlab.storage import StudyStore
from tests.processes import alive, wait_until_gone

SPEC = """\
study: killed
recipe: tiny-glm4-moe     # by name
workload: {contexts: [64], batch_sizes: [1, 2], new_tokens: 8}
space:
  max_num_seqs: [1, 2, 4, 8]
  cpu_split_kv: [true, false]
  block_size: [32, 64]
budget: {trials: 12}
confirm: {rounds: 3, rebuild_rounds: 3}
"""


class Driver:
    """One ``glmlab`` process in a folder with a study file."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "glmlab", *arguments],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def read_until(self, text: str) -> str:
        """Lines of the progress display up to one that holds a text."""
        assert self.process.stderr is not None
        seen = []
        for line in self.process.stderr:
            seen.append(line)
            if text in line:
                return "".join(seen)
        raise AssertionError(f"{text!r} never came:\n{''.join(seen)}")

    def finish(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=240)
        return self.process.returncode, out, err

    def below(self) -> tuple[int, ...]:
        """The engine's processes."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return tuple(child.pid for child in children)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study")
    (path / "study.yaml").write_text(SPEC)
    return path


def records(folder: Path) -> list[dict[str, Any]]:
    store = StudyStore.load("killed", f"sqlite:///{folder / 'glmlab.db'}")
    return [record.model_dump(exclude={"number"}) for record in store.records()]


def test_1_a_killed_driver_loses_no_finished_trial(folder: Path) -> None:
    driver = Driver(folder, "tune", "study.yaml", "--json")
    driver.read_until("#2 ")
    engine = driver.below()
    assert alive(engine)
    driver.process.kill()
    driver.finish()
    assert not wait_until_gone(engine)
    done = [record for record in records(folder) if record["status"] == "complete"]
    assert len(done) >= 3
    folder.joinpath("before.json").write_text(json.dumps(done, default=str))


def test_2_the_same_command_continues_and_a_killed_child_is_replaced(folder: Path) -> None:
    before = json.loads(folder.joinpath("before.json").read_text())
    driver = Driver(folder, "tune", "study.yaml", "--json")
    driver.read_until(f"#{len(before) + 1}")
    os.kill(driver.below()[0], signal.SIGKILL)
    driver.read_until("complete")  # the study goes on with a new engine
    time.sleep(0.3)
    driver.process.send_signal(signal.SIGINT)
    code, out, err = driver.finish()
    assert code == 0, err
    assert "stopping after this trial" in err
    summary = json.loads(out)
    assert summary["verdict"] is None
    after = records(folder)
    kept = [record for record in after if record["status"] == "complete"][: len(before)]
    assert json.loads(json.dumps(kept, default=str)) == before
    failed = [record for record in after if record["status"] == "failed"]
    assert len(failed) <= 1  # none, if the child died between two trials
    assert all("SIGKILL" in record["reason"] for record in failed)


def test_3_a_second_interrupt_ends_at_once_and_leaves_nothing(folder: Path) -> None:
    driver = Driver(folder, "tune", "study.yaml")
    driver.read_until("study killed")
    time.sleep(2)
    engine = driver.below()
    driver.process.send_signal(signal.SIGINT)
    driver.read_until("stopping after this trial")
    driver.process.send_signal(signal.SIGINT)
    code, _, err = driver.finish()
    assert code in (0, 130)  # 0 if the trial had just ended
    assert "Traceback" not in err
    assert not wait_until_gone(engine)


def test_4_only_one_run_may_hold_a_study(folder: Path) -> None:
    first = Driver(folder, "tune", "study.yaml")
    first.read_until("study killed")
    second = Driver(folder, "tune", "study.yaml")
    code, out, err = second.finish()
    assert (code, out) == (2, "")
    assert "another run holds it" in err
    assert len(err.splitlines()) == 1
    code, _, err = first.finish()
    assert code == 0, err


def test_5_in_the_end_every_point_was_measured_once_and_there_is_a_verdict(folder: Path) -> None:
    code, out, _ = Driver(folder, "show", "killed", "--json").finish()
    assert code == 0
    summary = json.loads(out)
    assert set(summary) >= {
        "study", "storage", "evidence", "trials", "baseline", "best", "verdict", "cost_s",
    }  # fmt: skip
    assert summary["evidence"] == "measured"
    assert set(summary["verdict"]) >= {"outcome", "ratio", "low", "high"}
    assert set(summary["cost_s"]) >= {"rebuild", "apply", "measure", "overhead", "restart_estimate"}
    assert summary["cost_s"]["times_cheaper"] > 5
    finished = [r for r in records(folder) if r["status"] == "complete"]
    assert len({json.dumps(r["params"], sort_keys=True) for r in finished}) == len(finished)
    counted = sum(summary["trials"].values())
    assert counted == 12
    # It is over: the same command measures nothing more.
    again, out, err = Driver(folder, "tune", "study.yaml", "--json").finish()
    assert again == 0
    assert json.loads(out)["trials"] == summary["trials"]
    assert "#" not in err


def test_6_show_and_export_are_for_people_too(folder: Path) -> None:
    code, out, err = Driver(folder, "show", "study.yaml").finish()
    assert (code, err) == (0, "")
    assert "verdict:" in out
    assert "evidence: measured" in out
    code, out, _ = Driver(folder, "export", "killed", "bundle").finish()
    assert code == 0
    assert {p.name for p in (folder / "bundle").iterdir()} == {
        "recipe.yaml", "serve.yaml", "env.sh", "evidence.json", "README.md",
    }  # fmt: skip
    code, out, err = Driver(folder, "export", "killed", "bundle").finish()
    assert (code, out) == (2, "")
    assert "exists and is not empty" in err


def test_7_vllm_itself_reads_the_exported_configuration(folder: Path) -> None:
    """Parsed by vLLM's own command line, it gives the engine that was tuned."""
    check = (
        "import json, sys\n"
        "from vllm.utils.argparse_utils import FlexibleArgumentParser\n"
        "from vllm.engine.arg_utils import AsyncEngineArgs\n"
        "try:\n"
        "    from vllm.entrypoints.launchers.cli_args import make_arg_parser\n"
        "except ImportError:\n"
        "    from vllm.entrypoints.openai.cli_args import make_arg_parser\n"
        "parser = make_arg_parser(FlexibleArgumentParser())\n"
        "args = parser.parse_args(['--config', 'bundle/serve.yaml'])\n"
        "e = AsyncEngineArgs.from_cli_args(args)\n"
        "print(json.dumps([e.model, e.load_format, e.block_size, e.max_num_seqs, e.enforce_eager]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=folder, capture_output=True, text=True, check=True
    )
    model, load_format, block_size, max_num_seqs, eager = json.loads(done.stdout.splitlines()[-1])
    evidence = json.loads((folder / "bundle/evidence.json").read_text())
    tuned = evidence["tuned"]
    params = evidence["summary"]["best" if tuned else "baseline"]["params"]
    assert Path(model).name == "glm4-moe"
    assert load_format == "glmlab_random"
    assert (block_size, max_num_seqs) == (params["block_size"], params["max_num_seqs"])
    assert eager is True
    environment = (folder / "bundle/env.sh").read_text()
    split = f"VLLM_CPU_ATTN_SPLIT_KV={int(params['cpu_split_kv'])}"
    assert (split in environment) is tuned
