"""SR: Which of twenty products does a user buy next: one letter, A to T."""

from __future__ import annotations

from ecellm.tasks import options
from ecellm.tasks.base import Task
from ecellm.tasks.next_item import NextItem
from ecellm.tasks.shorten import structured

TASK = Task(
    id="SR",
    name="Sequential_Recommendation",
    category="user understanding",
    kind="choice",
    primary="recall@1",
    max_new_tokens=4,
    rules=NextItem(),
    options=options.letters,
    shortener=structured,
)
