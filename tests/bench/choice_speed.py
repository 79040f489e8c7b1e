"""Prompts a second of `choice` on the classification tasks, against greedy answers, on SmolLM2-135M in fp32.

Asked are the same rows of PRP, PM, SA, MPC, PSI and AP, built from the real files (`ECELLM_BENCH_CHOICE_ROWS` of each,
40 unless told), with two threads in all, the model loaded before the clock starts:

- `choice`: the pool of Ray actors, two with one thread each; the possible answers hang behind the prompt, whose shared
  beginning is computed once, so one forward pass gives the answer,
- greedy at batch 64, length-sorted: transformers' `generate`, left padded, each task with its own limit of new tokens,
- our own `greedy` through the same pool, for comparison: it shares beginnings too, so only decoding is saved there.

Rows come in two rounds with the sides in turn. The claim: at least 2 times greedy at batch 64, and every answer valid.
"""

from __future__ import annotations

import os
from typing import Any

from ecellm.tasks.registry import task
from tests.bench._common import figure, say, spread
from tests.bench._pool import answered, as_requests, two_actors
from tests.bench._real import Asked, mixed_rows, prepared
from tests.bench._sides import side

TASKS = ("PRP", "PM", "SA", "MPC", "PSI", "AP")
ROUNDS = 2
BATCH = 64
GOAL = 2.0


def run() -> dict[str, Any]:
    made, folder = prepared()
    each = int(os.environ.get("ECELLM_BENCH_CHOICE_ROWS", "40"))
    rows = mixed_rows(made, folder, each, TASKS)
    rates: dict[str, list[float]] = {"choice": [], "generate": [], "greedy": []}
    valid, saved = {"choice": 0, "greedy": 0}, 0.0
    with side("generate", folder) as plain:
        for number in range(ROUNDS):
            mine = [row for i, row in enumerate(rows) if i % each * ROUNDS // each == number]
            for decoding in ("choice", "greedy"):
                asked = as_requests(made, folder, mine, decoding)
                seconds, answers, facts = answered(two_actors(made), folder, asked)
                rates[decoding].append(len(mine) / seconds)
                valid[decoding] += sum(
                    task(row.task).parse(answer.text) is not None for row, answer in zip(mine, answers, strict=True)
                )
                if decoding == "choice":
                    saved = 1 - facts.computed_tokens / facts.prompt_tokens
                say(f"{decoding} {rates[decoding][-1]:.2f}/s")
            seconds, _ = plain.ask(_sorted_lines(mine), BATCH, "generate")
            rates["generate"].append(len(mine) / seconds)
            say(f"generate at batch {BATCH} {rates['generate'][-1]:.2f}/s")
    ratios = {
        name: spread([a / b for a, b in zip(rates["choice"], rates[name], strict=True)])
        for name in ("generate", "greedy")
    }
    return figure(
        round(spread(rates["choice"])["median"], 3), "prompts/s",
        versus=round(spread(rates["generate"])["median"], 3),
        goal=f">= {GOAL:g} x greedy at batch {BATCH}, length-sorted; all answers valid",
        holds=ratios["generate"]["median"] >= GOAL and valid["choice"] == len(rows),
        ratios={name: round(value["median"], 2) for name, value in ratios.items()},
        samples={name: [round(rate, 3) for rate in found] for name, found in rates.items()},
        valid={name: f"{found} of {len(rows)}" for name, found in valid.items()}, saved_share=round(saved, 3),
        how=f"{len(rows)} rows in {ROUNDS} rounds, sides in turn, on {os.cpu_count()} cores",
    )  # fmt: skip


def _sorted_lines(rows: list[Asked]) -> list[dict[str, Any]]:
    """For `generate`: rows of one limit together, the longest first."""
    ordered = sorted(rows, key=lambda row: (row.limit, -len(row.ids)))
    return [{"text": row.text, "ids": list(row.ids), "limit": row.limit} for row in ordered]
