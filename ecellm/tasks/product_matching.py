"""PM: Are two catalogue entries the same product: yes or no."""

from __future__ import annotations

from ecellm.tasks import options
from ecellm.tasks.base import Task
from ecellm.tasks.binary import YesNo
from ecellm.tasks.shorten import structured

TASK = Task(
    id="PM",
    name="Product_Matching",
    category="product understanding",
    kind="binary",
    primary="f1",
    max_new_tokens=4,
    rules=YesNo(),
    options=options.yes_no,
    shortener=structured,
)
