"""A sequential recommender for SR: SASRec (Kang and McAuley 2018, arXiv 1808.09781) as the library Cornac has it.

It learns from the training rows' purchase histories and nothing else: items are what rows call them, and know no
words. A candidate that nobody in the training rows has bought cannot be scored; it comes after all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ecellm.baselines import views
from ecellm.config.evaluation import RecommenderBaseline
from ecellm.errors import ConfigError
from ecellm.records import Row
from ecellm.tasks import options
from ecellm.tasks.base import Task

UNKNOWN = float("-inf")


def answers(
    task: Task, train: Sequence[Row], test: Sequence[Row], seed: int, settings: RecommenderBaseline
) -> list[str]:
    """One letter for each test row of SR; nothing for other tasks, or where there is nothing to learn from.

    Raises ConfigError where Cornac is not installed.
    """
    if task.id != "SR":
        return []
    sessions = [items for row in train if len(items := [*history(row), *bought(task, row)]) > 1]
    if not sessions:
        return []
    model, places = _fitted(sessions, seed, settings)
    replies = []
    for row in test:
        one = views.candidates(task, row)
        known = [places[item] for item in history(row) if item in places]
        found = model.score(0, known) if known else None
        worth = [float(found[places[text]]) if found is not None and text in places else UNKNOWN for text in one.texts]
        replies.append(one.replies[max(range(len(worth)), key=lambda i: (worth[i], -i))] if worth else "")
    return replies


def history(row: Row) -> list[str]:
    """The items of a row's purchase history, earliest first."""
    items = options.literal(row.input)
    return [str(item).partition(":")[2].strip() for item in items] if isinstance(items, list) else []


def bought(task: Task, row: Row) -> list[str]:
    """The item that a training row says was bought next."""
    one = views.candidates(task, row)
    return [text for text, gain in zip(one.texts, one.gains, strict=True) if gain > 0][:1]


def _fitted(sessions: Sequence[Sequence[str]], seed: int, settings: RecommenderBaseline) -> tuple[Any, dict[str, int]]:
    try:
        from cornac.data import SequentialDataset
        from cornac.models import SASRec
    except ImportError as error:
        raise ConfigError(
            "evaluate.systems: recommender needs the package cornac", found=str(error),
            mend='pip install "ecellm[baselines]"',
        ) from error  # fmt: skip
    data = [
        (str(number), str(number), item, place)
        for number, items in enumerate(sessions)
        for place, item in enumerate(items)
    ]
    known: Any = SequentialDataset.build(data, fmt="USIT", seed=seed)
    model: Any = SASRec(
        embedding_dim=settings.dimension, n_epochs=settings.epochs, learning_rate=settings.learning_rate,
        max_len=max(map(len, sessions)), n_sample=min(256, known.num_items), batch_size=64, seed=seed, verbose=False,
    )  # fmt: skip
    model.fit(known)
    return model, {str(item): int(place) for item, place in known.iid_map.items()}
