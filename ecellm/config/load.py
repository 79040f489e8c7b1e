"""A run file and overrides to a checked Run, or one ConfigError that lists every fault.

TOML is read strictly: `epochs = "3"` is a wrong type, not a 3. Rules that span sections are checked even when
some settings are faulty, with those settings left at their defaults, so that one look mends the whole file.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ecellm.config.keys import known_keys, nearest
from ecellm.config.overrides import COMMAND_LINE, apply, read_overrides
from ecellm.config.rules import Fault
from ecellm.config.rules import faults as broken_rules
from ecellm.config.schema import Run
from ecellm.errors import ConfigError


def load_run(path: str, overrides: Sequence[str] = ()) -> Run:
    """Read a TOML run file and apply `--section.key value` overrides.

    A path that ends in `.json` is a resolved run, as `--dry-run` prints it and run.json holds it.

    Raises:
        ConfigError: the file cannot be read, or has faults; all of them are in the one message, each with its
            dotted path and where it was written.
    """
    text = _text(path)
    tree = _parse(path, text)
    values, found = read_overrides(overrides)
    found += apply(tree, values)
    run, more = _check(tree)
    found += more
    if found or run is None:
        raise _told(path, text, values, found)
    return run


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError as trouble:
        mend = "check the path; the run files that come with the project are in jobs/runs/"
        raise ConfigError(f"{path}: no such run file", mend=mend) from trouble
    except (OSError, UnicodeDecodeError) as trouble:
        raise ConfigError(f"{path}: cannot be read", found=str(trouble), expected="a TOML file in UTF-8") from trouble


def _parse(path: str, text: str) -> dict[str, Any]:
    if path.endswith(".json"):
        return _parse_json(path, text)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as trouble:
        place = re.search(r"\(at line (\d+), column (\d+)\)", str(trouble))
        line = int(place.group(1)) if place else len(text.splitlines())
        lines = text.splitlines() or [""]
        raise ConfigError(
            f"{path}, line {line}: not TOML ({re.sub(r' [(]at .*[)]$', '', str(trouble))})",
            found=lines[min(line, len(lines)) - 1].strip(),
            expected='key = value, with texts in quotes: name = "my_run"',
        ) from trouble


def _parse_json(path: str, text: str) -> dict[str, Any]:
    try:
        said = json.loads(text)
        run = said.get("run", said)
        return dict(run)
    except (ValueError, TypeError, AttributeError) as trouble:
        raise ConfigError(
            f"{path}: no resolved run", found=str(trouble), expected="what --dry-run prints, or a run.json"
        ) from trouble


def _check(tree: dict[str, Any]) -> tuple[Run | None, list[Fault]]:
    try:
        run = _validate(tree)
    except ValidationError as trouble:
        errors = trouble.errors(include_url=False)
        found = [_fault(error) for error in errors]
        return None, found + _rules_of_the_rest(tree, errors)
    return run, broken_rules(run)


def _validate(tree: dict[str, Any]) -> Run:
    # Strict JSON mode takes lists for tuples and whole numbers for decimals, and nothing else.
    return Run.model_validate_json(json.dumps(tree, default=str), strict=True)


def _rules_of_the_rest(tree: dict[str, Any], errors: list[ErrorDetails]) -> list[Fault]:
    rest = json.loads(json.dumps(tree, default=str))
    faulty = [tuple(error["loc"]) for error in errors]
    for place in faulty:
        _remove(rest, place)
    for name, stand_in in (("name", "x"), ("out", "x")):
        rest.setdefault(name, stand_in)
    model = rest.setdefault("model", {})
    if isinstance(model, dict):
        model.setdefault("base", "tiny")
    try:
        run = _validate(rest)
    except ValidationError:
        return []
    touched = [".".join(str(part) for part in place) for place in faulty]
    return [fault for fault in broken_rules(run) if not any(_within(fault.path, path) for path in touched)]


def _within(one: str, other: str) -> bool:
    return one == other or one.startswith(other + ".") or other.startswith(one + ".")


def _remove(tree: Any, place: tuple[int | str, ...]) -> None:
    # The whole setting goes, also where the fault is inside a list: a shorter list would mean something else.
    for name in place[:-1]:
        if not isinstance(tree, dict) or not isinstance(tree.get(str(name)), dict):
            break
        tree = tree[str(name)]
    for name in reversed(place):
        if isinstance(tree, dict) and name in tree:
            del tree[name]
            return


def _fault(error: ErrorDetails) -> Fault:
    path = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        near = nearest(path)
        return Fault(path, "unknown key", f"{near} (the nearest known key)" if near else f"one of {_siblings(path)}")
    if error["type"] == "missing":
        return Fault(path, "is missing", "a value")
    given = repr(error["input"])
    problem = f"{given[:77]}..." if len(given) > 80 else given
    return Fault(path, problem, _expected(error["msg"]))


def _expected(message: str) -> str:
    said = re.sub(r"^(Input should be|Value should be|Value error,|String should|Object should)\s*", "", message)
    said = re.sub(r"^(an? )?(valid )?array$", "a list", re.sub(r"^(a )?valid ", "a ", said))
    return re.sub(r"^a (?=[aeiou])", "an ", said)


def _siblings(path: str) -> str:
    section = path.rpartition(".")[0]
    return ", ".join(key for key in known_keys() if key.rpartition(".")[0] == section)


def _told(path: str, text: str, values: dict[str, Any], found: list[Fault]) -> ConfigError:
    lines = []
    for fault in found:
        place = COMMAND_LINE if _overridden(fault.path, values) else _place(path, text, fault.path)
        lines.append(f"{place}: {fault.path}: {fault.problem}; expected {fault.expected}")
    lines = list(dict.fromkeys(lines))
    if len(lines) == 1:
        return ConfigError(lines[0], mend="correct it and run the same command again")
    return ConfigError(
        f"{path}: {len(lines)} faults\n" + "\n".join(f"  {line}" for line in lines),
        mend="correct them and run the same command again; --dry-run checks a run file without doing anything",
    )


def _overridden(path: str, values: dict[str, Any]) -> bool:
    return any(path == key or path.startswith(key + ".") for key in values) or path.startswith("-")


def _place(path: str, text: str, key: str) -> str:
    """`FILE, line N` of a dotted key, or `FILE` where the key is not written out."""
    *sections, name = [part for part in key.split(".") if not part.isdigit()] or [key]
    section: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[\[?\s*([^\]]+?)\s*\]\]?", line)
        if header:
            section = [part.strip().strip("\"'") for part in header.group(1).split(".")]
            if section == [*sections, name]:
                return f"{path}, line {number}"
            continue
        stated = re.match(r"\s*([\w.\"'-]+?)\s*=", line)
        if stated and [*section, *stated.group(1).replace('"', "").replace("'", "").split(".")] == [*sections, name]:
            return f"{path}, line {number}"
    return path
