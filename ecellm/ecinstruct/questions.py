"""AP and AG, questions about products with review snippets (spec B.10).

The source's own splits are kept. `paper` takes two categories for each task, in the order of their names, and pandas'
draw: AP a sample, AG a shuffle that is walked until enough answers have a helpful vote. `sound` takes all in-domain
categories, cuts long documents (never the answer), leaves out answers that say only that their writer does not know,
and keeps each product and each question in one split, the same for both tasks.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict

import pyarrow as pa

from ecellm.ecinstruct import cleaning
from ecellm.ecinstruct.attributes import source_splits
from ecellm.ecinstruct.draws import mark, order
from ecellm.ecinstruct.flow.desk import Desk
from ecellm.ecinstruct.flow.family import At, Family, Stage
from ecellm.ecinstruct.picks import Picks, stands
from ecellm.ecinstruct.recipe import Recipe
from ecellm.ecinstruct.replay import permutation
from ecellm.ecinstruct.samples import POOLS, Sample
from ecellm.ecinstruct.splits import by_hash
from ecellm.sources.records import Question

CATEGORIES = {
    "AP": ("Sports_and_Outdoors", "Tools_and_Home_Improvement"),
    "AG": ("Electronics", "Home_and_Kitchen"),
}
"""In-domain categories of the `paper` recipe."""
ROWS = pa.schema(
    [
        ("owner", pa.string()), ("split", pa.string()), ("domain", pa.string()), ("asked", pa.string()),
        ("input", pa.string()), ("AP", pa.string()), ("AG", pa.string()), ("source", pa.string()),
    ]
)  # fmt: skip
NO_VOTE = "no answer with a helpful vote"
_IDLE = re.compile(
    r"(i'?m |i am )?(so |very )?(sorry|afraid)?[,. ]*(but )?(i )?((really )?(do not|don'?t|dont|didn'?t|did not) "
    r"(know|remember|recall)|(have )?no (idea|clue)|(am |'?m )?not sure|unsure|cannot (say|tell)|can'?t (say|tell))"
    r"( (this|that|about (this|that|it)|the answer|for sure))?[,. !]*(sorry)?[.! ]*",
    re.IGNORECASE,
)


def scatter(desk: Desk, question: Question, at: At) -> None:
    """One question with what each task would answer, to its product's part; "" where the task cannot use it."""
    recipe, tasks = desk.recipe, at.tasks
    if not recipe.mends.all_categories and at.domain != "OOD" and at.group:
        tasks = tuple(task for task in tasks if _named(task, at.group, desk))
    split = at.split or (_unstated(question, at, recipe) if recipe.paper else "")
    answers: dict[str, str] = {"AP": "", "AG": ""}
    for task in tasks:
        answers[task], reason = answer_of(task, question, recipe)
        if at.domain == "HELD":
            answers[task], reason = "", "category held out by another task"
        if reason == NO_VOTE and recipe.paper:
            desk.stand(task, split, f"{at.domain}/{at.group}", at.place, reason)
        if reason:
            desk.drop(reason, split, task=task)
    if not any(answers.values()):
        return
    given = shown(question, recipe)
    for task in (task for task, answer in answers.items() if answer):
        _count(desk, question, task)
    # What must not be in two splits: the product, or the question where no product is named.
    owner = question.product or f"question {cleaning.key(question.text)}"
    asked = f"question:{mark(cleaning.key(question.text)):016x}"
    if not recipe.paper:
        desk.tell("splits", split)
        desk.emit("rows", mark(owner), owner, split, at.domain, asked, given, answers["AP"], answers["AG"], at.source)
        return
    for task, answer in answers.items():
        if answer:
            one = Sample(task=task, input=given, output=answer, source=at.source, entities=("product:" + owner, asked))
            desk.offer("all", one, at.place)
            desk.stand(task, split, f"{at.domain}/{at.group}", at.place)


def _count(desk: Desk, question: Question, task: str) -> None:
    recipe, texts = desk.recipe, (question.text, *question.snippets)
    if recipe.mends.clean_text:
        desk.change(cleaning.MARKUP, sum(map(cleaning.marked, texts)), task)
        texts = tuple(map(cleaning.clean, texts))
    words = sum(len(text.split()) for text in texts[1:])
    if recipe.mends.cut_documents and words > recipe.max_words:
        desk.change(f"cut at {recipe.max_words} words", 1, task)


def _unstated(question: Question, at: At, recipe: Recipe) -> str:
    """The split that `paper` takes for a question whose source states none, as our stand-ins for AmazonQA do."""
    return "test" if at.domain == "OOD" else by_hash(recipe.seed, "question", question.id, recipe.shares)


def _named(task: str, group: str, desk: Desk) -> bool:
    if group in CATEGORIES[task]:
        return True
    desk.drop("category not of this task", "", task=task)
    return False


def best_answer(answers: tuple[tuple[str, int, int], ...]) -> str | None:
    """The answer with most helpful votes, the first of equals; None where no answer has one."""
    voted = [(text, helpful) for text, helpful, votes in answers if votes > 0]
    best = max(voted, key=lambda pair: pair[1], default=("", 0))
    return best[0] if best[1] > 0 else None


def answer_of(task: str, question: Question, recipe: Recipe) -> tuple[str, str]:
    """(output, "") or ("", why the question is left out)."""
    if not recipe.paper and not question.snippets:
        return "", "no document"
    if task == "AP":
        if question.answerable is None:
            return "", "answerability not stated"
        return ("yes" if question.answerable else "no"), ""
    if not question.descriptive:
        return "", "not a descriptive question"
    if question.answerable is False or (question.answerable is None and recipe.paper):
        return "", "not answerable"
    best = best_answer(question.answers)
    if best is not None and recipe.mends.clean_text:
        best = cleaning.clean(best)
    if not best:
        return "", NO_VOTE
    if recipe.mends.answerable_targets and idle(best):
        return "", "answer says only that its writer does not know"
    return best, ""


def idle(answer: str) -> bool:
    """Whether an answer says nothing but that its writer does not know."""
    return len(answer) < 80 and bool(_IDLE.fullmatch(answer.strip()))


def shown(question: Question, recipe: Recipe) -> str:
    """The input of a question."""
    text, snippets = question.text, list(question.snippets)
    if recipe.mends.clean_text:
        text, snippets = cleaning.clean(text), [*map(cleaning.clean, snippets)]
    if recipe.mends.cut_documents:
        snippets = cut(snippets, recipe.max_words)
    return json.dumps({"question": text, "document": snippets})


def cut(snippets: list[str], words: int) -> list[str]:
    """Snippets from the first on, `words` words in all; the one that crosses the limit is cut."""
    kept = []
    for snippet in snippets:
        if words <= 0:
            break
        kept.append(cleaning.first_words(snippet, words))
        words -= len(snippet.split())
    return kept


def owners(desk: Desk, part: int) -> None:
    """A split for each product of a part."""
    splits, mends = source_splits(desk, "question"), desk.recipe.mends
    of: dict[str, list[tuple[object, ...]]] = defaultdict(list)
    for row in desk.rows("rows", part):
        of[row[0]].append(row)
    for owner, rows in of.items():
        split = splits.of(owner, (str(row[1]) for row in rows))
        for _, said, domain, asked, given, answerable, answer, source in rows:
            pool = "ood" if domain == "OOD" else split
            if pool != "ood" and not mends.disjoint_splits:
                pool = str(said) or splits.of(str(given), ())
            for task, output in (("AP", answerable), ("AG", answer)):
                if output:
                    one = Sample(task=task, input=str(given), output=str(output), source=str(source),
                                 entities=("product:" + owner, str(asked)))  # fmt: skip
                    klass = str(output) if task == "AP" else ""
                    desk.offer(pool, one, order(desk.seed, task, one.input), klass)


def pick(desk: Desk) -> None:
    """The authors' draw of both tasks."""
    for task in FAMILY.tasks:
        picks, found = Picks(desk, task), stands(desk, task, "scatter")
        for pool in POOLS:
            domain = "OOD/" if pool == "ood" else "IND/"
            mine = [one for one in found.get("test" if pool == "ood" else pool, []) if one.group.startswith(domain)]
            size, turns = desk.recipes[task].size(pool), permutation(len(mine), desk.seed).tolist()
            walked = (mine[i] for i in turns)
            picks.put(pool, [one.place for one in walked if not one.note][:size])
        outside = sum(one.group.startswith("OOD/") and not one.note for pool in ("train", "val")
                      for one in found.get(pool, []))  # fmt: skip
        picks.leave("out-of-domain question outside the test part", "", outside)


def stages(recipe: Recipe) -> tuple[Stage, ...]:
    """`paper` draws at once."""
    return (Stage("picks", "once", pick),) if recipe.paper else (Stage("owners", "each", owners, offers=("AP", "AG")),)


FAMILY = Family(
    name="QA", tasks=("AP", "AG"), takes=(Question,), scatter=scatter, tables={"rows": ROWS}, stages=stages,
    paper_stream="all", one_answer={"AG": False},
)  # fmt: skip
