"""AVE: Which values has an attribute in a product's texts, and in which text: a JSON list of triples."""

from __future__ import annotations

from ecellm.tasks import grammar
from ecellm.tasks.base import Task
from ecellm.tasks.shorten import structured
from ecellm.tasks.triples import Triples

TASK = Task(
    id="AVE",
    name="Attribute_Value_Extraction",
    category="product understanding",
    kind="extraction",
    primary="f1",
    max_new_tokens=192,
    rules=Triples(),
    grammar=grammar.triples,
    shortener=structured,
)
