"""Rules of a run that span settings. Each is a small function that yields the faults it finds.

Bounds of one setting stand in its type (`schema.py`); nothing here changes a setting, it only refuses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import get_args

from ecellm.config.evaluation import CLOSER, MODELS, System
from ecellm.config.mends import TEXT_ONLY
from ecellm.config.schema import Run
from ecellm.records import SETTINGS


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a run file: the dotted path of the setting, what is wrong, what would be right."""

    path: str
    problem: str
    expected: str


def faults(run: Run) -> list[Fault]:
    """Every broken rule."""
    return [fault for rule in RULES for fault in rule(run)]


def one_kind_of_source(run: Run) -> Iterator[Fault]:
    """Raw data comes from exactly one place."""
    given = [name for name in ("files", "published", "made_up") if _given(getattr(run.sources, name))]
    if len(given) != 1:
        problem = f"{' and '.join(given)} are given" if given else "no raw data is named"
        yield Fault("sources", problem, "exactly one of sources.files, sources.published, sources.made_up")


def _given(value: object) -> bool:
    return value is not None and value not in ("", ())


def files_once(run: Run) -> Iterator[Fault]:
    """A file listed twice would count its records twice."""
    seen: dict[tuple[str, str, tuple[str, ...], str], int] = {}
    for number, file in enumerate(run.sources.files):
        first = seen.setdefault((file.format, file.path, file.tasks, file.category), number)
        if first != number:
            yield Fault(f"sources.files.{number}.path", f"{file.path!r} is entry {first} too", "each file once")


def locations(run: Run) -> Iterator[Fault]:
    """An s3:// location names a bucket; other schemes are not known."""
    named = {"out": run.out, "sources.root": run.sources.root, "model.base": run.model.base}
    if run.build.scratch:
        named["build.scratch"] = run.build.scratch
    for path, text in named.items():
        if not text.strip():
            yield Fault(path, "empty", "a folder, or s3://bucket/prefix")
        elif "://" in text and not re.match(_KNOWN[path == "sources.root"], text):
            yield Fault(path, f"{text!r} is no location", "a folder, or s3://bucket/prefix")


_KNOWN = (r"s3://[a-z0-9][a-z0-9.-]+(/|$)", r"(s3://[a-z0-9][a-z0-9.-]+|https?://[^/\s]+)(/|$)")


def batch_serves_all(run: Run) -> Iterator[Fault]:
    """Every worker has a sample in every step, and a packed row has room for the longest."""
    train, workers = run.train, run.cluster.workers
    if train.batch_size < workers:
        yield Fault("train.batch_size", f"{train.batch_size} for {workers} workers", f"{workers} or more")
    if 0 < train.pack_tokens < run.prepare.max_length:
        expected = f"0, or prepare.max_length ({run.prepare.max_length}) or more, so that one sample fits"
        yield Fault("train.pack_tokens", str(train.pack_tokens), expected)


def elastic_fits(run: Run) -> Iterator[Fault]:
    """Fewer workers are fewer, and a group of one process cannot shrink."""
    cluster = run.cluster
    if cluster.min_workers > cluster.workers:
        yield Fault("cluster.min_workers", str(cluster.min_workers), f"at most cluster.workers = {cluster.workers}")


def lengths(run: Run) -> Iterator[Fault]:
    """A prompt has room for its instruction, and fits a batch of the evaluation."""
    if run.prepare.max_length < 128:
        yield Fault(
            "prepare.max_length", f"{run.prepare.max_length} tokens", "128 or more: instructions alone need that"
        )
    if 0 < run.evaluate.batch_tokens < run.prepare.max_length:
        expected = f"prepare.max_length ({run.prepare.max_length}) or more, so that one prompt fits, or 0"
        yield Fault("evaluate.batch_tokens", str(run.evaluate.batch_tokens), expected)


def tiny_fits(run: Run) -> Iterator[Fault]:
    """The tiny Llama's heads have an even width (rotary positions), and its vocabulary holds every byte."""
    tiny = run.model.tiny
    if run.model.base != "tiny":
        return
    if tiny.hidden % (2 * tiny.heads):
        yield Fault("model.tiny.hidden", str(tiny.hidden), f"a multiple of 2 x heads = {2 * tiny.heads}")
    if tiny.vocab < 320:
        yield Fault("model.tiny.vocab", str(tiny.vocab), "320 or more: 256 bytes and the special tokens")


def engine_fits(run: Run) -> Iterator[Fault]:
    """The plain engine is one process with full fine-tuning: a yardstick, not a way to train at scale."""
    if run.train.engine != "plain":
        return
    if run.cluster.workers != 1:
        yield Fault("train.engine", f"plain with {run.cluster.workers} workers", "zero3, or cluster.workers = 1")
    if run.model.lora is not None:
        yield Fault("train.engine", "plain with model.lora", "zero3, or no [model.lora]")


def attention_fits(run: Run) -> Iterator[Fault]:
    """Flash attention needs a GPU and 16-bit numbers; flex attention has no backward pass on CPUs."""
    if not run.model.attention.startswith("fl"):
        return
    if run.cluster.gpus_per_worker == 0:
        yield Fault("model.attention", f"{run.model.attention} without GPUs", "auto, or cluster.gpus_per_worker = 1")
    if run.model.attention.startswith("flash") and run.model.dtype == "float32":
        yield Fault("model.attention", f"{run.model.attention} with float32", "auto, or model.dtype = 'bfloat16'")


def rates(run: Run) -> Iterator[Fault]:
    """Learning rates that wreck a model are mistakes of a digit."""
    fresh = run.model.base == "tiny" or run.model.lora is not None
    highest = 5e-2 if fresh else 1e-3
    if run.train.learning_rate > highest:
        kind = "random weights or adapters" if fresh else "full fine-tuning of a trained model"
        yield Fault("train.learning_rate", str(run.train.learning_rate), f"at most {highest:g} for {kind}")
    if not all(0 <= beta < 1 for beta in run.train.betas):
        yield Fault("train.betas", str(run.train.betas), "two numbers from 0 up to, not including, 1")
    if run.train.warmup_ratio >= 1:
        yield Fault("train.warmup_ratio", str(run.train.warmup_ratio), "below 1, or the rate never falls")


def rehearsal(run: Run) -> Iterator[Fault]:
    """A rehearsed failure comes after a checkpoint, before the end, and is allowed to be survived."""
    at = run.train.rehearse_failure_at
    if at == 0:
        return
    if run.cluster.max_failures == 0:
        yield Fault("cluster.max_failures", "0 with train.rehearse_failure_at", "1 or more")
    if run.checkpoint.every > at:
        yield Fault("train.rehearse_failure_at", str(at), f"checkpoint.every ({run.checkpoint.every}) or later")
    if 0 < run.train.max_steps <= at:
        yield Fault("train.rehearse_failure_at", str(at), f"before train.max_steps ({run.train.max_steps})")


def recipe_fits(run: Run) -> Iterator[Fault]:
    """What the paper did not do is no part of its recipe."""
    build = run.build
    if build.recipe != "paper":
        return
    if build.negatives == "hard":
        yield Fault("build.negatives", "hard with build.recipe = 'paper'", "random, or build.recipe = 'sound'")
    for name, paper in (("class_balance", 0), ("test_share", 0.1), ("val_share", 0.1), ("near_duplicates", 0)):
        given = getattr(build, name)
        if given not in (None, paper):
            yield Fault(f"build.{name}", f"{given} with build.recipe = 'paper'", f"{paper}, or build.recipe = 'sound'")
    for name, given in build.mends.model_dump().items():
        if given and name not in TEXT_ONLY:
            yield Fault(f"build.mends.{name}", "on with build.recipe = 'paper'", "build.recipe = 'sound'")


def evaluated(run: Run) -> Iterator[Fault]:
    """What is evaluated exists: published settings, and tasks that are built."""
    for number, setting in enumerate(run.evaluate.settings):
        if setting not in SETTINGS:
            yield Fault(f"evaluate.settings.{number}", repr(setting), "one of " + ", ".join(SETTINGS))
    if not run.sources.published and not set(run.evaluate.tasks) & set(run.build.tasks):
        yield Fault("evaluate.tasks", ", ".join(run.evaluate.tasks) or "none", "tasks of build.tasks")
    if not run.evaluate.systems and not run.evaluate.models:
        yield Fault("evaluate.systems", "none", "at least one of tuned, untuned, trivial, lexical, or evaluate.models")
    if run.probe.rows and run.train.engine == "plain":
        yield Fault("probe.rows", f"{run.probe.rows} with train.engine = plain", "0: one process has no spare workers")
    if run.probe.setting not in SETTINGS:
        yield Fault("probe.setting", repr(run.probe.setting), "one of " + ", ".join(SETTINGS))


def models_named(run: Run) -> Iterator[Fault]:
    """Every system has a name of its own; an endpoint has an address."""
    seen = set(get_args(System))
    for number, model in enumerate(run.evaluate.models):
        if model.name in seen:
            yield Fault(f"evaluate.models.{number}.name", repr(model.name), "a name that no other system has")
        seen.add(model.name)
        if model.engine == "openai" and not re.match(r"https?://[^/]", model.endpoint.url):
            yield Fault(f"evaluate.models.{number}.endpoint.url", repr(model.endpoint.url), "http://… or https://…")


def decodings_fit(run: Run) -> Iterator[Fault]:
    """Each decoding once, and only `transformers` scores answers and keeps grammars."""
    asked = (run.evaluate.decoding, *run.evaluate.also)
    if len(set(asked)) < len(asked):
        yield Fault("evaluate.also", ", ".join(run.evaluate.also), "each decoding once, evaluate.decoding left out")
    engines = {model.engine for model in run.evaluate.models}
    if set(run.evaluate.systems) & set(MODELS):
        engines.add(run.evaluate.engine)
    others = sorted(engines - {"transformers"})
    if run.evaluate.decoding in CLOSER and others:
        yield Fault("evaluate.decoding", f"{run.evaluate.decoding} with the engine {others[0]}", "greedy or paper")
    if others and set(CLOSER) & set(run.evaluate.also) and "transformers" not in engines:
        also = ", ".join(run.evaluate.also)
        yield Fault("evaluate.also", f"{also} with the engine {others[0]} alone", "paper, or none")


RULES: tuple[Callable[[Run], Iterator[Fault]], ...] = (
    one_kind_of_source, files_once, locations, batch_serves_all, elastic_fits, lengths, tiny_fits, engine_fits,
    attention_fits, rates, rehearsal, recipe_fits, evaluated,
    models_named, decodings_fit,
)  # fmt: skip
