"""Who is evaluated: each system is a voice, a way to make prompts, and a decoding; together a row of the scoreboard.

The one decision to know: the tuned model must bring its own `prompt.json` and the tokenizer that it names, or nothing
is asked (exit 4); the base is asked under the same policy, so that both get the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ecellm import prompt
from ecellm.config.evaluation import CLOSER
from ecellm.config.schema import Run
from ecellm.data.encode import Encoder
from ecellm.errors import CheckpointError
from ecellm.evaluate.examples import END, Examples
from ecellm.evaluate.requests import FREE, Form
from ecellm.evaluate.voices import BASE, MODEL, Voice, digest_of, folder_of, named_model
from ecellm.model.load import load_config, load_tokenizer
from ecellm.records import Row
from ecellm.storage.base import Storage, join
from ecellm.tasks.registry import task
from ecellm.tasks.template import SEPARATOR, Template, opening


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One row of the scoreboard. `family` is `t5` for encoder-decoders, else empty."""

    name: str
    voice: Voice
    decoding: str
    family: str
    prompt: Callable[[Row], list[int]]
    """Token ids of a row's prompt; for an endpoint the bytes of its text."""
    option: Callable[[str], list[int]] | None
    """Token ids of a possible answer; None: no answers can be scored."""
    policy: str
    """How prompts are made of rows, in words that change when it does."""
    end: str = ""
    """What follows an answer where a model goes on with a prompt of its own."""
    least_new_tokens: int = 0
    partly: bool = False
    """Only the tasks that its decoding applies to."""

    def form(self, row: Row) -> tuple[str, Form]:
        """The decoding that a row gets, and what it needs: greedy where this system's does not apply."""
        of = task(row.task)
        if self.decoding == "constrained" and of.grammar is not None and (grammar := of.grammar(row)):
            return "constrained", Form(grammar=grammar)
        if self.decoding == "choice" and self.option is not None:
            texts = of.options(row)
            tokens = tuple(tuple(self.option(text)) for text in texts)
            if texts and all(tokens) and len(set(tokens)) == len(tokens):
                return "choice", Form(options=texts, tokens=tokens, ranked=of.kind == "ranking")
        return ("greedy" if self.decoding in ("choice", "constrained") else self.decoding), FREE

    def covers(self, name: str) -> bool:
        """Whether it is asked about a task."""
        of = task(name)
        if not self.partly:
            return True
        return {"choice": of.kind in ("binary", "choice", "ranking"), "constrained": of.grammar is not None}.get(
            self.decoding, True
        )


def open_systems(run: Run, storage: Storage, examples: Examples) -> list[System]:
    """The systems of a run that are models, each in every decoding asked for.

    Raises CheckpointError where a model folder is missing, has no prompt.json, or does not fit its tokenizer.
    """
    found: list[System] = []
    for name in run.evaluate.systems:
        if name in ("tuned", "untuned"):
            found.append(_own(name, run, storage))
        elif name == "few_shot":
            base = next((one for one in found if one.name == BASE), None) or _own(BASE, run, storage)
            folder = folder_of(BASE, run)
            found.append(_with_examples(base, name, run, folder, examples, run.evaluate.shots))
    for model in run.evaluate.models:
        found.append(
            _remote(model.name, run, examples) if model.engine == "openai" else _named(model.name, run, examples)
        )
    return [one for system in found for one in _in_each_decoding(system, run)]


def _in_each_decoding(system: System, run: Run) -> Iterator[System]:
    yield replace(system, decoding=run.evaluate.decoding)
    for decoding in run.evaluate.also:
        if decoding in CLOSER and system.voice.engine != "transformers":
            continue
        yield replace(system, name=f"{system.name}@{decoding}", decoding=decoding, partly=True)


def _own(name: str, run: Run, storage: Storage) -> System:
    """The trained model or its base."""
    policy = _policy(storage, tuned=name == "tuned")
    folder = folder_of(name, run)
    tokenizer: Any = load_tokenizer(folder, trust_remote_code=run.model.trust_remote_code)
    if name == "tuned":
        prompt.check(policy, tokenizer, join(storage.root, MODEL))
    return local_system(name, run, policy, tokenizer, run.evaluate.engine, digest=digest_of(name, run))


def _named(name: str, run: Run, examples: Examples) -> System:
    """A model folder beside this run's own: under its own prompt.json where it has one."""
    named = named_model(name, run)
    folder = folder_of(name, run)
    trust = run.model.trust_remote_code
    tokenizer: Any = load_tokenizer(folder, trust_remote_code=trust)
    try:
        with open(join(folder, prompt.FILE), "rb") as file:
            policy = prompt.read_policy(file.read(), join(folder, prompt.FILE))
        prompt.check(policy, tokenizer, folder)
    except FileNotFoundError:
        policy = prompt.policy_of(
            tokenizer, template=named.template or run.prepare.template, max_length=run.prepare.max_length,
            encoder_decoder=bool(load_config(folder, trust_remote_code=trust).is_encoder_decoder),
        )  # fmt: skip
    if named.template and named.template != policy.template:
        policy = policy.model_copy(update={"template": named.template})
    system = local_system(name, run, policy, tokenizer, named.engine, digest=digest_of(name, run))
    return _with_examples(system, name, run, folder, examples, named.shots) if named.shots else system


def local_system(
    name: str, run: Run, policy: prompt.PromptPolicy, tokenizer: Any, engine: str, *, digest: str, folder: str = "",
    decoding: str = "greedy",
) -> System:  # fmt: skip
    """A model in memory under a prompt policy; `digest` names its content, `folder` is where it lies if not in OUT."""
    encoder = Encoder(tokenizer, policy, encoder_decoder=policy.encoder_decoder)
    known: dict[str, list[int]] = {}

    def option(text: str) -> list[int]:
        if text not in known:
            known[text] = encoder.option(text)
        return known[text]

    return System(
        name=name,
        voice=Voice(name=name, digest=digest, separator=SEPARATOR[policy.template], engine=engine, folder=folder),
        decoding=decoding,
        family="t5" if policy.encoder_decoder else "",
        prompt=encoder.prompt,
        option=option,
        policy=policy.model_dump_json(),
    )


def _with_examples(system: System, name: str, run: Run, folder: str, examples: Examples, shots: int) -> System:
    """The same voice, with worked examples before each prompt."""
    tokenizer: Any = load_tokenizer(folder, trust_remote_code=run.model.trust_remote_code)
    eos = tokenizer.eos_token_id if system.family != "t5" else None  # an encoder was trained to see it at the end
    config = load_config(folder, trust_remote_code=run.model.trust_remote_code)
    longest = int(getattr(config, "max_position_embeddings", 0) or run.prepare.max_length)
    template: Template = "mistral" if system.voice.separator == SEPARATOR["mistral"] else "alpaca"
    plain = system.prompt

    def with_examples(row: Row) -> list[int]:
        """As many examples as fit; the last ones go first."""
        room = longest - task(row.task).max_new_tokens
        for text in examples.prompts(row, shots, template):
            ids: list[int] = tokenizer(text)["input_ids"]
            ids = ids[:-1] if ids and ids[-1] == eos else ids
            if len(ids) <= room:
                return ids
        return plain(row)

    policy = f"{shots} examples, {longest} tokens, {system.policy}"
    return replace(system, name=name, prompt=with_examples, policy=policy, end=END + opening(template))


def _remote(name: str, run: Run, examples: Examples) -> System:
    """A model behind an endpoint, which gets the text itself."""
    named = named_model(name, run)
    template: Template = named.template or run.prepare.template

    def text(row: Row) -> list[int]:
        whole = next(iter(examples.prompts(row, named.shots, template)))
        return list(whole.encode())

    return System(
        name=name,
        voice=Voice(name=name, digest=digest_of(name, run), separator=SEPARATOR[template], engine="openai"),
        decoding="greedy", family="", prompt=text, option=None, least_new_tokens=named.endpoint.least_new_tokens,
        policy=f"{named.shots} examples, {template}", end=END + opening(template) if named.shots else "",
    )  # fmt: skip


def _policy(storage: Storage, *, tuned: bool) -> prompt.PromptPolicy:
    """The tuned model's policy; for the base alone also the one that prepare wrote."""
    keys: Sequence[str] = [f"{MODEL}/{prompt.FILE}"] + ([] if tuned else [prompt.FILE])
    for key in keys:
        try:
            return prompt.read_policy(storage.read(key), join(storage.root, key))
        except FileNotFoundError:
            continue
    there = next(iter(storage.list(f"{MODEL}/")), None) is not None
    raise CheckpointError(
        f"{join(storage.root, keys[0])}: how the model's prompts are made is not known",
        found=f"a model folder without {prompt.FILE}" if there else "no model folder",
        expected=f"{prompt.FILE} beside the model, from the run that trained it",
        mend="export the model again from its checkpoint" if there else "run: ecellm train RUN.toml",
    )
