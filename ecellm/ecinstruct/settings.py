"""Samples to rows: the settings of the published data (spec A.3, B.0). The only place where an instruction is chosen.

A draw depends on (seed, task, split, id) alone; the authors' single generator over a directory listing does not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from ecellm.ecinstruct.draws import number
from ecellm.ecinstruct.recipe import Recipe
from ecellm.ecinstruct.samples import Sample
from ecellm.records import IND, KINDS, OOD, Row
from ecellm.tasks.registry import task as find_task

SINGLE, DIVERSE, UNSEEN, ONE_SHOT = KINDS
Pools = Mapping[str, Sequence[Sample]]


def to_rows(task: str, split: str, pools: Pools, recipe: Recipe) -> Iterator[Row]:
    """Rows of a split in every setting, the out-of-domain test after the in-domain one."""
    shots = sorted(pools["train"], key=lambda sample: sample.id) if recipe.mends.drawn_shots else pools["train"]
    name = find_task(task).name
    for pool, domain in ((split, IND), *((("ood", OOD),) if split == "test" else ())):
        for kind in KINDS if split == "test" else (SINGLE, DIVERSE):
            if kind == ONE_SHOT and not shots:
                continue
            for place, sample in enumerate(pools[pool]):
                yield _row(task, name, sample, split, f"{domain}_{kind}", kind, shots, place, recipe)


def instruction(task: str, split: str, id: str, kind: str, recipe: Recipe) -> str:
    """The instruction of one row."""
    words = recipe.words
    if kind == SINGLE:
        return words.base
    if kind == UNSEEN:
        return words.unseen
    return words.seen[number(recipe.seed, "instruction", task, split, id) % len(words.seen)]


def shot(task: str, split: str, id: str, train: Sequence[Sample], place: int, recipe: Recipe) -> str:
    """The one-shot example of a test row: a train sample as a JSON object, drawn or (spec B.0) of the same index."""
    if recipe.mends.drawn_shots:
        place = number(recipe.seed, "shot", task, split, id)
    example = train[place % len(train)]
    given = {"input": example.input, "options": example.options, "output": example.output}
    return json.dumps({key: value for key, value in given.items() if value is not None})


def _row(
    task: str, name: str, sample: Sample, split: str, setting: str, kind: str, shots: Sequence[Sample], place: int,
    recipe: Recipe,
) -> Row:  # fmt: skip
    own = sample.id
    return Row(
        split=split,
        task=name,
        setting=setting,
        instruction=instruction(task, split, own, kind, recipe),
        input=sample.input,
        options=sample.options,
        output=sample.output,
        few_shot_example=shot(task, split, own, shots, place, recipe) if kind == ONE_SHOT else None,
        id=own,
        source=sample.source,
        option_labels=sample.option_labels,
    )
