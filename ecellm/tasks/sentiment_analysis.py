"""SA: How many stars goes a review with: A very positive to E very negative. Primary: macro F1."""

from __future__ import annotations

from ecellm.tasks import options
from ecellm.tasks.base import Task
from ecellm.tasks.classes import Choice
from ecellm.tasks.shorten import plain

TASK = Task(
    id="SA",
    name="Sentiment_Analysis",
    category="user understanding",
    kind="choice",
    primary="f1",
    max_new_tokens=12,
    rules=Choice("ABCDE"),
    options=options.texts,
    shortener=plain,
)
