"""Twenty engine rebuilds in one driver: memory of the driver, and processes left behind.

Run it with ``python benchmarks/rebuild_memory.py [REBUILDS]``; it exits with 1 if the driver grew by
more than 50 MB after the first rebuild, or if a process was left.
"""

from __future__ import annotations

import gc
import sys
import time

import psutil

from glmlab import Workload, find_recipe, start

LIMIT_BYTES = 50e6


def main(rebuilds: int) -> int:
    """Run the benchmark and return the exit code."""
    recipe = find_recipe("tiny-glm4-moe")
    workload = Workload(contexts=(64,), batch_sizes=(2,), new_tokens=8)
    driver = psutil.Process()
    rss_bytes, seconds, left = [], [], []
    for index in range(rebuilds):
        begin = time.perf_counter()
        with start(recipe.replace(block_size=32 * (1 + index % 2)), home="child") as engine:
            engine.measure(workload)
            pids = engine.pids
        seconds.append(time.perf_counter() - begin)
        left += [pid for pid in pids if _runs(pid)]
        gc.collect()
        rss_bytes.append(driver.memory_info().rss)
        print(f"{index + 1:3}  {seconds[-1]:5.1f} s  driver {rss_bytes[-1] / 1e6:6.1f} MB", flush=True)
    grown = rss_bytes[-1] - rss_bytes[0]
    print(
        "\n| rebuilds | mean s | driver after 1, MB | driver at the end, MB | growth, MB | processes left |"
    )
    print("|---|---|---|---|---|---|")
    print(
        f"| {rebuilds} | {sum(seconds) / rebuilds:.1f} | {rss_bytes[0] / 1e6:.1f}"
        f" | {rss_bytes[-1] / 1e6:.1f} | {grown / 1e6:.2f} | {len(left)} |"
    )
    return int(grown > LIMIT_BYTES or bool(left))


def _runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
