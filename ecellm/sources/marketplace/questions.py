"""Made-up marketplace: product questions with review snippets and answers, in the form of AmazonQA."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from ecellm.sources.marketplace.words import ASKS, ATTRIBUTES, IDLE_REPLIES, MENTIONS, REPLIES, SILENT, TALKED_OF
from ecellm.sources.marketplace.world import Item, World


def make_questions(
    world: World, noise: float, seed: int, start: int, stop: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(split, record) of questions `start` to `stop`. One is answerable when a snippet states what it asks for."""
    draw = random.Random(f"questions {seed} {start}")
    for number in range(start, stop):
        item = draw.choice(world.items)
        asked = draw.choice(sorted(item.values))
        answerable = draw.random() < TALKED_OF[asked]
        closed = draw.random() < 0.3
        value = item.values[asked] if draw.random() < 0.5 else draw.choice(ATTRIBUTES[asked])
        facts = {"attribute": asked, "type": item.type, "brand": item.brand, "value": value, "model": item.model}
        text = draw.choice(ASKS["closed" if closed else "open"]).format(**facts)
        snippets = _snippets(item, asked, answerable, draw)
        label = answerable if draw.random() > noise / 2 else not answerable
        split = draw.choices(("train", "val", "test"), (0.8, 0.1, 0.1))[0]
        yield (
            split,
            {
                "questionText": text,
                "questionType": "yesno" if closed else "descriptive",
                "asin": item.id,
                "category": item.group,
                "qid": number,
                "review_snippets": snippets,
                "is_answerable": int(label),
                "answers": _answers(item, asked, draw),
            },
        )


def _snippets(item: Item, asked: str, answerable: bool, draw: random.Random) -> list[str]:
    others = [name for name in item.values if name != asked]
    count = draw.choice((2, 3))  # as many statements either way: their number says nothing
    names = [*draw.sample(others, count - 1), asked] if answerable else draw.sample(others, count)
    facts = {"type": item.type, "brand": item.brand}
    texts = [draw.choice(MENTIONS).format(attribute=name, value=item.values[name]) for name in names]
    texts.append(draw.choice(SILENT).format(**facts))
    draw.shuffle(texts)
    return texts


def _answers(item: Item, asked: str, draw: random.Random) -> list[dict[str, Any]]:
    """One to three answers; the most helpful one, where anybody voted, is mostly the right one."""
    facts = {"attribute": asked, "value": item.values[asked], "type": item.type}
    voted = draw.random() < 0.6
    best = {"answerText": draw.choice(REPLIES).format(**facts), "answerType": "NA"}
    found = [best | {"helpful": [draw.randrange(2, 9), 9] if voted else [0, 0]}]
    for _ in range(draw.choice((0, 1, 2))):
        text = draw.choice(IDLE_REPLIES)
        helpful = [draw.choice((0, 0, 1)), 3] if voted else [0, 0]
        found.append({"answerText": text, "answerType": "NA", "helpful": helpful})
    draw.shuffle(found)
    return found
