"""Samples to rows: the settings of the published data (spec A.3, B.0). The only place where an instruction is chosen.

A draw depends on (seed, task, split, id) alone; the authors' single generator over a directory listing does not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from ecellm.ecinstruct.draws import number
from ecellm.ecinstruct.instructions import wording
from ecellm.ecinstruct.samples import Sample, Samples
from ecellm.records import IND, KINDS, OOD, Row
from ecellm.tasks.registry import task as find_task

SINGLE, DIVERSE, UNSEEN, ONE_SHOT = KINDS


def to_rows(task: str, samples: Samples, seed: int) -> Iterator[Row]:
    """Rows of every split and setting, in order: train, val, test, then the out-of-domain test."""
    shots = sorted(samples.train, key=lambda sample: sample.id)
    for split, pool, domain in (("train", samples.train, IND), ("val", samples.val, IND), ("test", samples.test, IND),
                                ("test", samples.ood, OOD)):  # fmt: skip
        kinds = KINDS if split == "test" else (SINGLE, DIVERSE)
        for kind in kinds:
            if kind == ONE_SHOT and not shots:
                continue
            for sample in pool:
                yield _row(task, sample, split, domain, kind, shots, seed)


def instruction(task: str, split: str, id: str, kind: str, seed: int) -> str:
    """The instruction of one row."""
    words = wording(task)
    if kind == SINGLE:
        return words.base
    if kind == UNSEEN:
        return words.unseen
    return words.seen[number(seed, "instruction", task, split, id) % len(words.seen)]


def shot(task: str, split: str, id: str, train: Sequence[Sample], seed: int) -> str:
    """The one-shot example of a test row: a train sample as a JSON object. `train` must be sorted by id."""
    example = train[number(seed, "shot", task, split, id) % len(train)]
    given = {"input": example.input, "options": example.options, "output": example.output}
    return json.dumps({key: value for key, value in given.items() if value is not None})


def _row(task: str, sample: Sample, split: str, domain: str, kind: str, shots: Sequence[Sample], seed: int) -> Row:
    name = sample.id
    return Row(
        split=split,
        task=find_task(task).name,
        setting=f"{domain}_{kind}",
        instruction=instruction(task, split, name, kind, seed),
        input=sample.input,
        options=sample.options,
        output=sample.output,
        few_shot_example=shot(task, split, name, shots, seed) if kind == ONE_SHOT else None,
        id=name,
        source=sample.source,
        option_labels=sample.option_labels,
    )
