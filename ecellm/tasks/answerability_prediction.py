"""AP: Does a document answer a question: yes or no."""

from __future__ import annotations

from ecellm.tasks import options
from ecellm.tasks.base import Task
from ecellm.tasks.binary import YesNo
from ecellm.tasks.shorten import structured

TASK = Task(
    id="AP",
    name="Answerability_Prediction",
    category="product question answering",
    kind="binary",
    primary="f1",
    max_new_tokens=4,
    rules=YesNo(),
    options=options.yes_no,
    shortener=structured,
)
