"""AG: What is the answer to a question, given a document: free text."""

from __future__ import annotations

from ecellm.tasks.answers import FreeText
from ecellm.tasks.base import Task
from ecellm.tasks.shorten import structured

TASK = Task(
    id="AG",
    name="Answer_Generation",
    category="product question answering",
    kind="text",
    primary="bertscore_f1",
    max_new_tokens=100,
    rules=FreeText(),
    shortener=structured,
)
