"""AP and AG, questions about products with review snippets (spec B.10).

The source's own splits are kept. `paper` takes two categories for each task; `sound` takes all in-domain ones, cuts
long documents (never the answer), and keeps each product and each question in one split, the same for both tasks.
"""

from __future__ import annotations

import json
from collections import defaultdict

from ecellm.ecinstruct import cleaning
from ecellm.ecinstruct.samples import Pools, Recipe, Sample, Samples, Sourced, finish, of_type
from ecellm.ecinstruct.splits import by_hash, with_source_splits
from ecellm.records import OOD
from ecellm.sources.records import Question

CATEGORIES = {
    "AP": ("Sports_and_Outdoors", "Tools_and_Home_Improvement"),
    "AG": ("Electronics", "Home_and_Kitchen"),
}
"""In-domain categories of the `paper` recipe."""


def build(task: str, records: list[Sourced], recipe: Recipe) -> Samples:
    """Samples of Question records, for AP or AG."""
    pools, found = Pools(), of_type(records, Question)
    stated: dict[str, set[str]] = defaultdict(set)
    for _, question in found:
        stated[_owner(question)].add(question.split)
    splits = with_source_splits(stated, recipe.seed, "question", recipe.shares)
    for source, question in found:
        output, reason = _answer(task, question, recipe)
        if reason:
            pools.dropped[reason] += 1
            continue
        one = _sample(task, source, question, output, recipe)
        if question.domain == OOD:
            # the paper takes OOD samples from the source's test part; where they are held out whole, all may serve
            pool = "ood" if recipe.sound or question.split in ("test", "") else ""
        elif recipe.sound:
            pool = splits[_owner(question)]
        else:
            pool = question.split or by_hash(recipe.seed, "question", question.id, recipe.shares)
        if pool:
            pools.add(pool, one)
        else:
            pools.dropped["out-of-domain question outside the test part"] += 1
    return finish(task, pools, recipe, one_answer=task == "AP")


def best_answer(answers: tuple[tuple[str, int, int], ...]) -> str | None:
    """The answer with most helpful votes, the first of equals; None where no answer has one."""
    voted = [(text, helpful) for text, helpful, votes in answers if votes > 0]
    best = max(voted, key=lambda pair: pair[1], default=("", 0))
    return best[0] if best[1] > 0 else None


def _answer(task: str, question: Question, recipe: Recipe) -> tuple[str, str]:
    """(output, "") or ("", why the question is left out)."""
    if not recipe.sound and question.domain != OOD and question.category not in CATEGORIES[task]:
        return "", "category not of this task"
    if recipe.sound and not question.snippets:
        return "", "no document"
    if recipe.sound and not cleaning.mostly_english(question.text):
        return "", "foreign script"
    if task == "AP":
        if question.answerable is None:
            return "", "answerability not stated"
        return ("yes" if question.answerable else "no"), ""
    if not question.descriptive:
        return "", "not a descriptive question"
    if question.answerable is False or (question.answerable is None and not recipe.sound):
        return "", "not answerable"
    best = best_answer(question.answers)
    if recipe.sound and best is not None:
        best = cleaning.clean(best)
    return (best, "") if best else ("", "no answer with a helpful vote")


def _sample(task: str, source: str, question: Question, output: str, recipe: Recipe) -> Sample:
    if recipe.sound:
        text, snippets = cleaning.clean(question.text), cut([*map(cleaning.clean, question.snippets)], recipe.max_words)
    else:
        text, snippets = question.text, list(question.snippets)
    return Sample(
        task=task, input=json.dumps({"question": text, "document": snippets}), output=output, source=source,
        entities=(f"owner:{_owner(question)}", f"question:{cleaning.key(question.text)}"),
    )  # fmt: skip


def cut(snippets: list[str], words: int) -> list[str]:
    """Snippets from the first on, `words` words in all; the one that crosses the limit is cut."""
    kept = []
    for snippet in snippets:
        if words <= 0:
            break
        kept.append(cleaning.first_words(snippet, words))
        words -= len(snippet.split())
    return kept


def _owner(question: Question) -> str:
    """What must not be in two splits: the product, or the question where no product is named."""
    return question.product or f"question {cleaning.key(question.text)}"
