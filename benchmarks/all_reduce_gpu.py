"""All-reduces at decode sizes between two or more GPUs of this machine, by every path that vLLM has.

    python benchmarks/all_reduce_gpu.py OUT.jsonl [--ranks 2]

An engine with a tiny model is started for each setting of NCCL and asked what its all-reduces take, the way
a study asks (``engine.all_reduce_times``). Settings: vLLM's own, NCCL alone, and NCCL without peer access.
The engines start at once and are asked in turns, so what the machine does meanwhile happens to all.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import glmlab
from glmlab import find_recipe
from glmlab.provenance import of_run

SETTINGS: dict[str, dict[str, Any]] = {
    "vLLM's own": {},
    "NCCL": {"custom_all_reduce": False},
    "NCCL, NCCL_P2P_DISABLE=1": {"custom_all_reduce": False, "env": {"NCCL_P2P_DISABLE": "1"}},
}
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--ranks", type=int, default=2)
    asked = parser.parse_args()
    recipe = find_recipe("tiny-glm4-moe").replace(tensor_parallel=asked.ranks)
    with ExitStack() as stack, asked.out.open("w", encoding="utf-8") as file:
        with ThreadPoolExecutor() as pool:
            starting = {
                name: pool.submit(glmlab.start, recipe.replace(**fields)) for name, fields in SETTINGS.items()
            }
        engines = {name: stack.enter_context(future.result()) for name, future in starting.items()}
        about = {"date": time.strftime("%Y-%m-%d"), **of_run()}
        file.write(json.dumps({"kind": "header", **about}) + "\n")
        for number in range(ROUNDS):
            for name, engine in engines.items():
                for found in engine.all_reduce_times():  # type: ignore[attr-defined]
                    line = {"kind": "time", "setting": name, "round": number, **found.model_dump()}
                    file.write(json.dumps(line) + "\n")
                    print(line, flush=True)


if __name__ == "__main__":
    main()
