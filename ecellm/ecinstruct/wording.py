"""The wording that a run file names: a folder of TOML files, or published rows whose wording is harvested.

Harvested wording makes rows that a published checkpoint was trained to read: its instructions, its options. It is taken
from a copy that the user has; none of it is part of this package.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable

from ecellm.config.schema import TASK_IDS, Run
from ecellm.ecinstruct.instructions import OPTION_LETTERS, OTHERS, Wording, parse_wording
from ecellm.ecinstruct.published import rows_of
from ecellm.errors import ConfigError, DataError
from ecellm.records import IND, KINDS, Row
from ecellm.sources.opening import open_text
from ecellm.storage.base import is_remote
from ecellm.storage.open import open_storage
from ecellm.tasks.registry import task as find_task

SINGLE, DIVERSE, UNSEEN, _ = KINDS


def own_wordings(run: Run) -> dict[str, Wording]:
    """Task -> wording, for the tasks that `build.wording` has; none where it is empty.

    Raises ConfigError for a folder without wording or a file of another form, DataError for unreadable rows.
    """
    location = run.build.wording
    if not location:
        return {}
    if location.endswith((".json", ".jsonl")):
        return harvest(rows_of(location, run.storage), location)
    names = {f"{task.lower()}.toml": task for task in TASK_IDS}
    storage = open_storage(location, run.storage)
    found: dict[str, Wording] = {}
    for key, _ in storage.list(""):
        task = names.get(key.lower())
        if task:
            with open_text(f"{location.rstrip('/')}/{key}", settings=run.storage) as file:
                found[task] = parse_wording(file.read(), task, run.seed, f"{location}/{key}")
    if not found:
        raise ConfigError(
            f"build.wording: {location} has no wording",
            found="no TASK.toml of a task",
            expected="ave.toml, prp.toml, … in a folder, or a published dataset.json",
            mend="correct build.wording" + ("" if is_remote(location) else ", or make the folder"),
        )
    return found


def harvest(rows: Iterable[Row], name: str) -> dict[str, Wording]:
    """The wording of published rows: base of Single, the five of Diverse, the sixth of Unseen, options as they stand.

    Tasks of which some setting is missing are left out. Raises DataError where a task has other numbers of
    instructions.
    """
    told: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    options: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        task = find_task(row.task).id
        kind = row.setting.partition("_")[2]
        if row.setting.startswith(IND) and kind in (SINGLE, DIVERSE, UNSEEN):
            told[task, kind][row.instruction] += 1
            if task in OPTION_LETTERS and row.options:
                options[task][row.options] += 1
    found: dict[str, Wording] = {}
    for task in TASK_IDS:
        single, diverse, unseen = (sorted(told[task, kind]) for kind in (SINGLE, DIVERSE, UNSEEN))
        if not (single and diverse and unseen):
            continue
        if len(single) != 1 or len(unseen) != 1 or len(diverse) != OTHERS or single[0] not in diverse:
            raise DataError(f"{name}: the wording of {task} cannot be taken",
                            found=f"{len(single)} single, {len(diverse)} diverse, {len(unseen)} unseen instructions",
                            expected=f"1, {OTHERS} with the single one among them, and 1",
                            mend="take the whole published file")  # fmt: skip
        others = [text for text in diverse if text != single[0]]
        listed = _options(task, options[task], name)
        found[task] = Wording(single[0], (*others, unseen[0]), len(others), listed)
    if not found:
        raise DataError(
            f"{name}: no wording in it",
            found="no task with single, diverse and unseen rows",
            expected="the published rows of all settings",
            mend="take the whole published file",
        )
    return found


def _options(task: str, seen: Counter[str], name: str) -> tuple[str, ...]:
    letters = OPTION_LETTERS.get(task, "")
    if not letters:
        return ()
    text = min(seen, key=lambda one: (-seen[one], one), default="[]")
    try:
        listed = json.loads(text)
    except ValueError:
        listed = []
    if not isinstance(listed, list) or "".join(str(option)[:1] for option in listed) != letters:
        raise DataError(
            f"{name}: the options of {task} cannot be taken",
            found=text[:100],
            expected=f"a JSON list of options {', '.join(letters)}",
            mend="take the whole published file",
        )
    return tuple(map(str, listed))
