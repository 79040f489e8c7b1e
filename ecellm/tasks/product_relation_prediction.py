"""PRP: How are two products related: bought together (A), viewed together (B), similar (C). Primary: macro F1."""

from __future__ import annotations

from ecellm.tasks import options
from ecellm.tasks.base import Task
from ecellm.tasks.classes import Choice
from ecellm.tasks.shorten import structured

TASK = Task(
    id="PRP",
    name="Product_Relation_Prediction",
    category="product understanding",
    kind="choice",
    primary="f1",
    max_new_tokens=8,
    rules=Choice("ABC"),
    options=options.letters,
    shortener=structured,
)
