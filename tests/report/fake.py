"""A made-up OUT folder with every part that a report reads: `python -m tests.report.fake DIR` writes one to look at.

Its replies are drawn, so its figures say nothing, but they are scored as real ones are; its texts hold markup and
pipes on purpose.
"""

import json
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ecellm.evaluate.scores import Judges, as_read, items_json, predictions_jsonl, score_task
from ecellm.records import Prediction, Row
from ecellm.rows import write_rows
from ecellm.storage.local import LocalStorage
from ecellm.tasks.base import Floats
from ecellm.tasks.registry import TASKS

IND, OOD, UNSEEN = "IND_Diverse_Instruction", "OOD_Diverse_Instruction", "IND_Unseen_Instruction"
NASTY = "<script>alert('lamp')</script> | A&B"
SYSTEMS = {"tuned": 0.75, "tuned@choice": 0.75, "untuned": 0.3, "tfidf": 0.6, "trivial/always_yes": 0.4,
           "trivial/majority": 0.45, "lexical/word_overlap": 0.5}  # fmt: skip
"""How often each is right."""
ROWS = 12
_GOLD = {
    "AVE": ['[{"attribute": "Brand", "value": "lume", "source": "title"}]',
            '[{"attribute": "Colour", "value": "None", "source": "None"}]'],
    "PRP": ["A", "B", "C"], "PM": ["yes", "no"], "SA": ["A: very positive", "B: positive", "E: very negative"],
    "SR": ["C", "A", "T"], "MPC": ["A: exact", "B: near", "D: off"], "PSI": ["no", "yes"], "QPR": ["B,A,C", "A,B,C"],
    "AP": ["yes", "no"], "AG": ["It fits.", "Yes, two."],
}  # fmt: skip


def fake_out(folder: Path, seed: int = 1, name: str = "toy") -> Path:
    """Write the folder; the same seed gives the same folder."""
    draw = random.Random(seed)
    storage = LocalStorage(str(folder))
    rows = [_row(task, n, split, IND) for task in TASKS for split in ("train", "val", "test") for n in range(ROWS)]
    rows += [replace(row, setting=UNSEEN) for row in rows if row.split == "test"]
    rows += [_row(task, n, "test", OOD) for task in ("AVE", "PRP", "SA", "SR", "AP", "AG") for n in range(ROWS)]
    write_rows(storage, "rows", rows)
    card = {"sources": [{"path": "marketplace/reviews.json", "sha256": "ab" * 32}], "seed": seed, "made_up": True}
    storage.write("rows/card.json", json.dumps(card).encode())
    judges = Judges(resamples=12, seed=seed, similarity=_alike)
    for system, level in SYSTEMS.items():
        scores: dict[str, dict[str, object]] = {}
        for setting in (IND, UNSEEN, OOD):
            for task in TASKS:
                mine = [row for row in rows if row.split == "test" and row.setting == setting and _id(row) == task]
                if not mine or not _has(system, task):
                    continue
                said = as_read(TASKS[task], mine, [_prediction(row, draw, level, system) for row in mine])
                entry, items = score_task(TASKS[task], mine, said, judges)
                scores.setdefault(setting, {})[task] = entry
                place = "evaluation" if system == "tuned" else f"baselines/{system}"
                storage.write(f"{place}/{setting}/{task}/predictions.jsonl", predictions_jsonl(said))
                storage.write(f"{place}/{setting}/{task}/items.json", items_json(said, items))
        home = "" if system == "tuned" else f"baselines/{system}/"
        storage.write(f"{home}scores.json", json.dumps(scores).encode())
    lines = [_step(step, draw) for step in range(1, 241)]
    storage.write("metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    probes = [_probe(step, draw) for step in (80, 160, 240)]
    storage.write("probes.jsonl", "".join(json.dumps(line) + "\n" for line in probes).encode())
    storage.write("run.json", json.dumps(_run(name, seed)).encode())
    return folder


def _alike(predictions: Sequence[str], labels: Sequence[str]) -> Floats:
    same = [[float(a == b) * 0.5 + 0.4] * 3 for a, b in zip(predictions, labels, strict=True)]
    return np.array(same, dtype=np.float64).reshape(-1, 3)


def _has(system: str, task: str) -> bool:
    if system.startswith("lexical/"):
        return task in ("AVE", "PM", "PSI", "QPR", "AP", "AG")
    return not system.endswith("@choice") or TASKS[task].kind in ("binary", "choice", "ranking")


def _id(row: Row) -> str:
    return next(t.id for t in TASKS.values() if t.name == row.task)


def _row(task: str, number: int, split: str, setting: str) -> Row:
    return Row(
        split=split, task=TASKS[task].name, setting=setting, instruction="Read and answer.",
        input=f"{NASTY} lamp {number}", options=None, output=_GOLD[task][number % len(_GOLD[task])],
        few_shot_example=None, id=f"{task}-{split}-{setting[:3]}-{number}", source=f"made up {number % 2}",
        option_labels="ESI" if task == "QPR" else None,
    )  # fmt: skip


def _prediction(row: Row, draw: random.Random, level: float, system: str) -> Prediction:
    choice = system.endswith("@choice")
    wrong = [text for text in _GOLD[_id(row)] if text != row.output] if choice else ["D", NASTY, "perhaps", ""]
    text = row.output if draw.random() < level else draw.choice(wrong)
    model = "/" not in system and system != "tfidf"
    return Prediction(
        id=row.id, prompt_sha256="0" * 64, text=text, parsed=TASKS[_id(row)].parse(text), tokens=3,
        finish_reason="choice" if choice else "stop" if model else "rule",
        decoding="choice" if choice else "greedy" if model else "",
        shares={text: draw.uniform(0.5, 1), "other": 0.1} if choice else None,
    )  # fmt: skip


def _step(step: int, draw: random.Random) -> dict[str, object]:
    line = {"step": step, "epoch": step / 80, "loss": 4 / step**0.5 + draw.uniform(0, 0.2), "attempt": 1 + step // 121}
    line |= {"grad_norm": draw.uniform(0.5, 2), "workers": 2}
    line |= {"lr": 3e-3 * min(step / 12, 1), "tokens_per_second": draw.uniform(2800, 3300), "seconds": 1.5}
    return line | ({"val_loss": 4 / step**0.5 + 0.2} if step % 80 == 0 else {})


def _probe(step: int, draw: random.Random) -> dict[str, object]:
    scores = {
        task: {"metric": TASKS[task].primary, "value": draw.random(), "n": 16, "n_failed": 1} for task in TASKS
    }  # fmt: skip
    return {"step": step, "seconds": 3.0, "scores": scores}


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
