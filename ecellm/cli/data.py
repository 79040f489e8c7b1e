"""`ecellm data show|stats|page OUT`: some rows, their numbers, a page of both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from ecellm.console import console, note
from ecellm.errors import ConfigError
from ecellm.storage.base import join
from ecellm.storage.open import open_storage

app = typer.Typer(help="Look at the rows that build made.", no_args_is_help=True)
Out = Annotated[str, typer.Argument(metavar="OUT", help="A run's output: a folder or an s3:// prefix.")]
Tokenizers = Annotated[
    list[str],
    typer.Option("--tokenizer", help="Count tokens too: a Hugging Face folder or hub name, or `out` for OUT's."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def show(
    out: Out,
    task: Annotated[str, typer.Option(help="Task, by id or any spelling of its name; empty: all.")] = "",
    n: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 3,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "train",
    setting: Annotated[str, typer.Option(help="As IND_Single_Instruction; empty: the diverse one.")] = "",
    find: Annotated[str, typer.Option(help="Only rows whose input or output holds this text.")] = "",
    seed: Annotated[int, typer.Option(help="Another seed shows others.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Some rows, readable."""
    from dataclasses import asdict

    from ecellm.looking.pick import some
    from ecellm.records import SETTINGS

    if setting and setting not in SETTINGS:
        raise ConfigError("--setting: unknown", found=setting, expected=", ".join(SETTINGS))
    rows = some(open_storage(out), n, seed, split=split, task=task or None, setting=setting or None, find=find)
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False))
        return
    for row in rows:
        _print(row)
    if not rows:
        note("no such row")


def _print(row: Any) -> None:
    from ecellm.looking.page import pretty

    out = _stdout()
    out.rule(
        f"[bold]{escape(row.task)}[/]  {row.split}  {row.setting}  [dim]{row.id}  {escape(row.source)}[/]", align="left"
    )
    out.print(escape(row.instruction), style="italic")
    out.print(escape(pretty(row.input)))
    if row.options:
        out.print(escape(pretty(row.options)), style="cyan")
    if row.few_shot_example:
        out.print(escape(pretty(row.few_shot_example)), style="dim")
    out.print(f"[bold green]{escape(row.output)}[/]" + (f"  [dim]{row.option_labels}[/]" if row.option_labels else ""))


@app.command()
def stats(out: Out, tokenizer: Tokenizers = [], as_json: AsJson = False) -> None:  # noqa: B006
    """Samples, answers and lengths of each task."""
    from ecellm.looking import numbers as counted
    from ecellm.looking.page import card_of

    found = counted.numbers(open_storage(out), _measures(out, tokenizer))
    said = counted.as_json(found)
    if as_json:
        typer.echo(json.dumps(said, indent=1, ensure_ascii=False))
        return
    samples = Table("task", "train", "val", "test", "ood", "answers in training", box=None, pad_edge=False)
    for task, one in said.items():
        answers = one["answers"].get("train", {})
        total = sum(answers.values())
        shares = "  ".join(f"{label[:28]} {n / total:.0%}" for label, n in list(answers.items())[:6])
        samples.add_row(
            task, *(str(one["samples"].get(pool, "")) for pool in ("train", "val", "test", "ood")), escape(shares)
        )
    if card_of(open_storage(out)).get("made_up"):
        _stdout().print("[yellow]made-up data[/yellow]")
    _stdout().print(samples)
    lengths = Table("task", "in", "prompt: median", "95th", "longest", "answer: median", "95th", "longest", box=None,
                    pad_edge=False)  # fmt: skip
    for task, one in said.items():
        for name, of in one["lengths"].items():
            cells = [str(of[what][key]) for what in ("prompts", "answers") for key in ("median", "p95", "longest")]
            lengths.add_row(task, name, *cells)
    _stdout().print()
    _stdout().print(lengths)


@app.command()
def page(
    out: Out,
    tokenizer: Tokenizers = [],  # noqa: B006
    seed: Annotated[int, typer.Option(help="Another seed shows other examples.")] = 1,
) -> None:
    """An HTML page with distributions, histograms and examples: OUT/data.html."""
    from ecellm.looking.page import write_page

    storage = open_storage(out)
    key = write_page(storage, _measures(out, tokenizer), seed)
    note(f"page: {join(storage.root, key)}")


def _measures(out: str, names: Sequence[str]) -> dict[str, Any]:
    from ecellm.looking.numbers import words

    return {"words": words, **{_short(name): _tokens(out, name) for name in names}}


def _short(name: str) -> str:
    return "tokens" if name == "out" else f"tokens of {name.rstrip('/').rpartition('/')[2]}"


def _tokens(out: str, name: str) -> Any:
    from ecellm.model.base import FOLDER, base_kind, local_copy
    from ecellm.model.load import load_tokenizer

    if name == "out":
        tokenizer = load_tokenizer(local_copy(open_storage(out), FOLDER))
    elif base_kind(name) == "folder":
        tokenizer = load_tokenizer(name)
    elif base_kind(name) == "hub":
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise ConfigError(f"--tokenizer: {name} cannot be had", found=str(error).partition("\n")[0][:200],
                              expected="a folder with a tokenizer, or a hub name and a way to the hub",
                              mend="give a folder") from error  # fmt: skip
    else:
        raise ConfigError(f"--tokenizer: {name}", expected="a Hugging Face folder, a hub name, or out",
                          mend="prepare the run and say --tokenizer out")  # fmt: skip
    return lambda texts: [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]


def _stdout() -> Any:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True) if not console.is_terminal else Console(highlight=False)
