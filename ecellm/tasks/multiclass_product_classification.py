"""MPC: How well does a product answer a query: exact, substitute, complement or irrelevant. Primary: accuracy."""

from __future__ import annotations

from ecellm.tasks import options
from ecellm.tasks.base import Task
from ecellm.tasks.classes import Choice
from ecellm.tasks.shorten import structured

TASK = Task(
    id="MPC",
    name="Multiclass_Product_Classification",
    category="query product matching",
    kind="choice",
    primary="acc",
    max_new_tokens=16,
    rules=Choice("ABCD"),
    options=options.texts,
    shortener=structured,
)
