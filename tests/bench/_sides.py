"""The other ways to answer the same prompts, each in a process of its own that is asked over its standard input.

    python -m tests.bench._sides SIDE FOLDER

A line of JSON asks: `{"batch": 2, "rows": [{"text", "ids", "limit"}, …]}`; a line answers: `{"seconds", "texts"}`, the
time being that of the answering alone. Models are loaded before the first line `ready`. Not a benchmark.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SEPARATOR = "### Response:"


def cut(text: str) -> str:
    """The reply in a continuation (spec C.3)."""
    return text.split(SEPARATOR, 1)[0].strip()


class Transformers:
    """One process, two threads, as the authors run it: `pipeline`, or `generate` in plain batches."""

    def __init__(self, folder: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
        self.torch: Any = torch
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.pipe = pipeline("text-generation", model=self.model, tokenizer=self.tokenizer, device=-1)

    def pipeline(self, rows: Sequence[dict[str, Any]], batch: int) -> list[str]:
        """The pipeline over the texts of one limit at a time, in file order: the authors' pattern."""
        found = []
        for limit, group in groupby(rows, key=lambda row: row["limit"]):
            texts = [row["text"] for row in group]
            said = self.pipe(texts, batch_size=batch, max_new_tokens=limit, do_sample=False, return_full_text=False)
            found += [one[0]["generated_text"] for one in said]
        return [cut(text) for text in found]

    def generate(self, rows: Sequence[dict[str, Any]], batch: int) -> list[str]:
        """`generate` over token ids, left padded, in the order given."""
        torch, found = self.torch, []
        for limit, group in groupby(rows, key=lambda row: row["limit"]):
            mine = list(group)
            for begin in range(0, len(mine), batch):
                prompts = [row["ids"] for row in mine[begin : begin + batch]]
                width = max(map(len, prompts))
                ids = torch.full((len(prompts), width), self.tokenizer.pad_token_id)
                mask = torch.zeros((len(prompts), width), dtype=torch.long)
                for i, prompt in enumerate(prompts):
                    ids[i, width - len(prompt) :] = torch.tensor(prompt)
                    mask[i, width - len(prompt) :] = 1
                with torch.inference_mode():
                    out = self.model.generate(
                        ids, attention_mask=mask, max_new_tokens=limit, do_sample=False,
                        pad_token_id=self.tokenizer.pad_token_id,
                    )  # fmt: skip
                found += self.tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
        return [cut(text) for text in found]


class Vllm:
    """Our own vLLM engine, in a Python that has vLLM."""

    def __init__(self, folder: str) -> None:
        from ecellm.config.schema import Model
        from ecellm.evaluate.engines.offline import Offline

        self.engine = Offline(folder, Model(base=folder), gpu=False, longest=1024, separator=SEPARATOR)

    def vllm(self, rows: Sequence[dict[str, Any]], batch: int) -> list[str]:
        """All at once."""
        from ecellm.evaluate.requests import request

        settings = {"model": "m", "decoding": "greedy", "seed": 0}
        asked = [request(row["ids"], max_new_tokens=row["limit"], **settings) for row in rows]  # type: ignore[arg-type]
        found = {answer.key: answer.text for answer in self.engine.answer(asked)}
        return [found[one.key] for one in asked]


def main(side: str, folder: str) -> None:
    """Answer requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes elsewhere
    work: Any = (Vllm if side == "vllm" else Transformers)(folder)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        begun = time.perf_counter()
        texts = getattr(work, asked.get("way", side))(asked["rows"], asked["batch"])
        print(json.dumps({"seconds": time.perf_counter() - begun, "texts": texts}), file=answers, flush=True)


class Side:
    """The other end of such a process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def ask(self, rows: Sequence[dict[str, Any]], batch: int, way: str = "") -> tuple[float, list[str]]:
        """Seconds and texts."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        asked = {"rows": rows, "batch": batch} | ({"way": way} if way else {})
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        found = json.loads(self.process.stdout.readline())
        return found["seconds"], found["texts"]


@contextmanager
def side(name: str, folder: str, python: str = sys.executable, threads: int = 2) -> Iterator[Side]:
    """A side, loaded and waiting. Raises RuntimeError with what it said where it does not come up."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    environment |= {"TOKENIZERS_PARALLELISM": "false", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "2"}
    environment |= {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}"}
    process = subprocess.Popen(
        [python, "-m", "tests.bench._sides", name, folder], cwd=ROOT, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE if name == "vllm" else subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            said = process.stderr.read() if process.stderr else ""
            raise RuntimeError(said.strip().splitlines()[-1] if said.strip() else f"{name} did not start")
        yield Side(process)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
