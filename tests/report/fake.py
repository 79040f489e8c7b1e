"""A made-up OUT folder with every part that a report reads: `python -m tests.report.fake DIR` writes one to look at.

Its figures are drawn, so they say nothing; its texts hold markup and pipes on purpose.
"""

import json
import random
import sys
from dataclasses import asdict
from pathlib import Path

from ecellm.records import Prediction, Row
from ecellm.rows import write_rows
from ecellm.storage.local import LocalStorage
from ecellm.tasks.registry import TASKS

IND, OOD = "IND_Diverse_Instruction", "OOD_Diverse_Instruction"
NASTY = "<script>alert('lamp')</script> | A&B"
_GOLD = {
    "AVE": '[{"attribute": "Brand", "value": "lume", "source": "title"}]', "PRP": "A: also buy", "PM": "yes",
    "SA": "B: positive", "SR": "C", "MPC": "A: exact", "PSI": "no", "QPR": "B,A,C", "AP": "yes", "AG": "It fits.",
}  # fmt: skip


def fake_out(folder: Path, seed: int = 1, name: str = "toy") -> Path:
    """Write the folder; the same seed gives the same folder."""
    draw = random.Random(seed)
    storage = LocalStorage(str(folder))
    rows = [_row(task, n, split, IND) for task in TASKS for split in ("train", "val", "test") for n in range(8)]
    rows += [_row(task, n, "test", OOD) for task in ("AVE", "PRP", "SA", "SR", "AP", "AG") for n in range(8)]
    write_rows(storage, "rows", rows)
    card = {"sources": [{"path": "marketplace/reviews.json", "sha256": "ab" * 32}], "seed": seed, "made_up": True}
    storage.write("rows/card.json", json.dumps(card).encode())
    for system in ("tuned", "untuned", "trivial/always_yes", "trivial/majority", "lexical/word_overlap"):
        home = "" if system == "tuned" else f"baselines/{system}/"
        level = {"tuned": 0.62, "untuned": 0.2}.get(system, 0.45)
        scores = {s: {t: _entry(t, draw, level) for t in _tasks(s) if _has(system, t)} for s in (IND, OOD)}
        storage.write(f"{home}scores.json", json.dumps(scores).encode())
    for row in (row for row in rows if row.split == "test"):
        key = f"evaluation/{row.setting}/{_id(row)}/predictions.jsonl"
        said = draw.choice([row.output, "D", NASTY, "perhaps"])
        line = json.dumps(asdict(_prediction(row, said)))
        before = storage.read(key) if storage.exists(key) else b""
        storage.write(key, before + line.encode() + b"\n")
    lines = [_step(step, draw) for step in range(1, 241)]
    storage.write("metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    storage.write("run.json", json.dumps(_run(name, seed)).encode())
    return folder


def _has(system: str, task: str) -> bool:
    return not system.startswith("lexical/") or task in ("AVE", "PM", "PSI", "QPR", "AP", "AG")


def _tasks(setting: str) -> list[str]:
    return [t for t in TASKS if setting == IND or t in ("AVE", "PRP", "SA", "SR", "AP", "AG")]


def _id(row: Row) -> str:
    return next(t.id for t in TASKS.values() if t.name == row.task)


def _row(task: str, number: int, split: str, setting: str) -> Row:
    return Row(
        split=split, task=TASKS[task].name, setting=setting, instruction="Read and answer.",
        input=f"{NASTY} lamp {number}", options=None, output=_GOLD[task], few_shot_example=None,
        id=f"{task}-{split}-{setting[:3]}-{number}", source="made up", option_labels="ESI" if task == "QPR" else None,
    )  # fmt: skip


def _prediction(row: Row, text: str) -> Prediction:
    parsed = TASKS[_id(row)].parse(text)
    return Prediction(id=row.id, prompt_sha256="0" * 64, text=text, parsed=parsed, finish_reason="stop", tokens=3)


def _entry(task: str, draw: random.Random, level: float) -> dict[str, object]:
    value = min(0.97, max(0.03, level + draw.uniform(-0.2, 0.25)))
    metric = TASKS[task].primary
    strict = {metric: value, "ci95": [value - 0.03, value + 0.03]}
    paper = {metric: value + 0.01}
    return {"strict": strict, "paper": paper, "n": 1000, "n_failed": draw.randrange(60), "primary": metric}


def _step(step: int, draw: random.Random) -> dict[str, object]:
    line = {"step": step, "epoch": step / 80, "loss": 4 / step**0.5 + draw.uniform(0, 0.2), "attempt": 1 + step // 121}
    line |= {"grad_norm": draw.uniform(0.5, 2), "workers": 2}
    line |= {"lr": 3e-3 * min(step / 12, 1), "tokens_per_second": draw.uniform(2800, 3300), "seconds": 1.5}
    return line | ({"val_loss": 4 / step**0.5 + 0.2} if step % 80 == 0 else {})


def _run(name: str, seed: int) -> dict[str, object]:
    run = {
        "name": name, "sources": {"made_up": {"products": 100}}, "model": {"base": "tiny", "lora": None},
        "train": {"engine": "zero3", "batch_size": 64, "learning_rate": 3e-3},
        "prepare": {"template": "alpaca", "setting": "Diverse_Instruction"}, "evaluate": {"decoding": "greedy"},
        "cluster": {"workers": 2},
    }  # fmt: skip
    return {"run": run, "seed": seed, "git": {"revision": "0123abc", "changed": True},
            "versions": {"torch": "2.13.0"}, "machine": {"cores": 2}, "train": {"wall_seconds": 754.2}}  # fmt: skip


if __name__ == "__main__":
    fake_out(Path(sys.argv[1]))
