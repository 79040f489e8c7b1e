"""Each task's wording: one base instruction, five others, the options. One TOML file a task; ours is package data.

Which of the five no training row carries is drawn from the seed, as spec B.0 has it: with seed 1 it is the second one,
and for MPC and PSI what the authors' generator gives after their 12,000 draws for each task before. A user's folder
may hold files of the same form for some tasks or all; `harvest` takes the wording of published rows.
"""

from __future__ import annotations

import json
import random
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from ecellm.config.schema import TASK_IDS
from ecellm.errors import ConfigError

OTHERS = 5
CHAIN = ("QPR", "MPC", "PSI")
"""Tasks whose draws the authors made with one generator, in this order."""
CHAIN_DRAWS = 12_000
OPTION_LETTERS = {"PRP": "ABC", "SA": "ABCDE", "MPC": "ABCD"}
"""Tasks whose options are the same in every row."""


@dataclass(frozen=True, slots=True)
class Wording:
    """Instructions of one task: `seen` are the five of the Diverse setting."""

    base: str
    others: tuple[str, ...]
    unseen_index: int
    options: tuple[str, ...]

    @property
    def options_json(self) -> str:
        """The options as a row shows them."""
        return _as_json(self.options)

    @property
    def seen(self) -> tuple[str, ...]:
        """The others without the unseen one, then the base."""
        return (*(text for i, text in enumerate(self.others) if i != self.unseen_index), self.base)

    @property
    def unseen(self) -> str:
        """The instruction of the Unseen setting."""
        return self.others[self.unseen_index]

    def to_toml(self) -> str:
        """The wording as a file that `build.wording` takes."""
        text = f"base = {_quoted(self.base)}\nunseen = {self.unseen_index}\nothers = [\n"
        text += "".join(f"  {_quoted(other)},\n" for other in self.others) + "]\n"
        if self.options:
            text += "options = [\n" + "".join(f"  {_quoted(option)},\n" for option in self.options) + "]\n"
        return text


@cache
def _as_json(options: tuple[str, ...]) -> str:
    return json.dumps(options)


def _quoted(text: str) -> str:
    """A basic TOML string: JSON's escapes are TOML's, but for the control character that JSON leaves alone."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


@cache
def unseen_index(task: str, seed: int) -> int:
    """Which of the five others is unseen."""
    draw = random.Random(seed)
    for name in CHAIN:
        index = draw.randrange(OTHERS)
        if name == task or task not in CHAIN:
            return index
        for _ in range(CHAIN_DRAWS):
            draw.randrange(OTHERS)
    raise AssertionError(task)


@cache
def own_wording(task: str, seed: int) -> Wording:
    """Our own wording of a task id. The files are checked by a test, not here."""
    text = files("ecellm.ecinstruct").joinpath("instructions", f"{task.lower()}.toml").read_text("utf-8")
    return parse_wording(text, task, seed, f"instructions/{task.lower()}.toml")


def parse_wording(text: str, task: str, seed: int, name: str) -> Wording:
    """A wording from TOML: `base`, `others` (five), `options` where the task has them, `unseen` if it is to be fixed.

    Raises ConfigError where the file has another form.
    """
    try:
        said = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _fault(name, task, f"not TOML: {error}") from None
    base, others, options = said.get("base"), said.get("others"), said.get("options", [])
    letters = OPTION_LETTERS.get(task, "")
    if not _text(base):
        raise _fault(name, task, f"base = {base!r:.60}")
    if not isinstance(others, list) or len(others) != OTHERS or not all(map(_text, others)):
        raise _fault(name, task, f"others = {others!r:.100}")
    if len({base, *others}) != OTHERS + 1:
        raise _fault(name, task, "two instructions are the same")
    if not isinstance(options, list) or "".join(str(option)[:1] for option in options) != letters:
        raise _fault(name, task, f"options = {options!r:.100}")
    index = said.get("unseen", unseen_index(task, seed))
    if not isinstance(index, int) or not 0 <= index < OTHERS:
        raise _fault(name, task, f"unseen = {index!r:.20}")
    return Wording(str(base), tuple(map(str, others)), index, tuple(map(str, options)))


def wordings(own: Mapping[str, Wording], seed: int) -> dict[str, Wording]:
    """The wording of every task: a user's where there is one, else ours."""
    return {task: own.get(task) or own_wording(task, seed) for task in TASK_IDS}


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _fault(name: str, task: str, found: str) -> ConfigError:
    letters = ", ".join(f"'{letter}: …'" for letter in OPTION_LETTERS.get(task, ""))
    return ConfigError(
        f"{name}: no wording of {task}", found=found,
        expected="base = a text, others = five other texts" + (f", options = [{letters}]" if letters else ""),
        mend="see ecellm/ecinstruct/instructions/ for the form",
    )  # fmt: skip
