"""PSI: Is a product a substitute for what a query asks: yes or no."""

from __future__ import annotations

from ecellm.tasks import options
from ecellm.tasks.base import Task
from ecellm.tasks.binary import YesNo
from ecellm.tasks.shorten import structured

TASK = Task(
    id="PSI",
    name="Product_Substitute_Identification",
    category="query product matching",
    kind="binary",
    primary="f1",
    max_new_tokens=4,
    rules=YesNo(),
    options=options.yes_no,
    shortener=structured,
)
