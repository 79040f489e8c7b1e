"""The `openai` engine against a server on this machine that fails: nothing is lost, and the bill is the server's.

The stage `evaluate` asks an endpoint for real rows of all ten tasks (`ECELLM_BENCH_API_ROWS` of each, 30 unless told).
Half of the requests meet a fault: 429 with and without a time to wait, 500, 503, no reply until the time-out, a
connection that is dropped, a body that is no JSON, a reply without choices or without text. Some prompts never get a
reply that can be used, and in the middle the stage is stopped by SIGTERM and run again. The server keeps its own
books. The claim: the stage finishes; every row has the reply that the server gives it, or none where it gives none; no
question was answered twice; prompt and answer tokens of the bill are the server's to the last one, and no request is
missing from it (a try on a connection that was dropped may never have arrived). An undisturbed server is asked the same
beside it: scores are equal.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from ecellm.config.schema import Run
from ecellm.errors import Stopped
from ecellm.evaluate.requests import prompt_digest
from ecellm.evaluate.run import evaluate
from tests.bench._common import figure, say
from tests.bench._stage import changed, fresh_out
from tests.evaluate.endpoint_server import Books, endpoint, for_good, reply_to

SHARE, FOR_GOOD_SHARE = 0.5, 0.03


def run() -> dict[str, Any]:
    limit = int(os.environ.get("ECELLM_BENCH_API_ROWS", "30"))
    with tempfile.TemporaryDirectory(prefix="ecellm-bench-") as folder:
        say("a server without faults")
        quiet, _, _, _ = _asked(Path(folder) / "quiet", limit, 0.0)
        say("a server with faults, and a stop")
        scores, facts, books, wrong = _asked(Path(folder) / "faults", limit, SHARE)
    bill = facts["bill"]
    off = {
        "prompt tokens": bill["prompt_tokens"] - books.prompt_tokens,
        "answer tokens": bill["answer_tokens"] - books.answer_tokens,
    }
    unseen = bill["attempts"] - books.asked.total()
    twice = sum(max(0, times - 1) for times in books.answered.values())
    hopeless = sum(bool(for_good(prompt, FOR_GOOD_SHARE)) for prompt in books.asked)
    lost = facts["requests"] - hopeless - sum(times > 0 for times in books.answered.values())
    faults = books.faults.total() - books.faults["none"]
    return figure(
        lost + wrong, "answers lost or wrong", versus=facts["requests"], goal="0, the bill the server's, scores equal",
        holds=min(faults, hopeless) > 0 and scores == quiet
        and not (lost or wrong or twice or any(off.values()) or unseen < 0),
        twice=twice, bill=bill, bill_off=off, tries_that_never_arrived=unseen, faults=dict(books.faults),
        never_answered=hopeless, scores_equal=scores == quiet, samples=[lost, wrong, twice],
        how=f"{facts['requests']} questions, {faults} of {books.asked.total()} requests met a fault",
    )  # fmt: skip


def _asked(out: Path, limit: int, share: float) -> tuple[dict[str, Any], dict[str, Any], Books, int]:
    """Scores, facts of the voice, the server's books, and replies that are not the server's."""
    with endpoint(share=share) as (url, books):
        books.always = lambda prompt: for_good(prompt, FOR_GOOD_SHARE)
        place = {"url": url, "timeout_s": 1, "concurrency": 16, "usd_per_million_prompt": 10.0}
        model = {"name": "gpt", "model": "gpt-4", "engine": "openai", "endpoint": place}
        settings = {"limit": limit, "systems": [], "models": [model]}
        run = changed(fresh_out(out), evaluate=settings)
        if share:
            _stopped_at(run, books, limit * 10 // 4)
        scores = evaluate(run)["scores"]["gpt"]
    facts = json.loads((out / "evaluation/COMPLETE").read_text())["voices"]["gpt"]
    expected = {
        prompt_digest(list(prompt.encode())): "" if for_good(prompt, FOR_GOOD_SHARE) else reply_to(prompt)
        for prompt in books.asked
    }
    said = [json.loads(line) for path in out.glob("**/predictions.jsonl") for line in path.read_text().splitlines()]
    return scores, facts, books, sum(expected.get(one["prompt_sha256"]) != one["text"] for one in said)


def _stopped_at(run: Run, books: Books, asked: int) -> None:
    """Run the stage until the server has got so many requests, then stop it by a signal."""

    def stop() -> None:
        while books.asked.total() < asked:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    try:
        evaluate(run)
    except Stopped:
        return
    raise AssertionError("the stage ended before the stop")
