"""All task families, and which one a task belongs to."""

from __future__ import annotations

from ecellm.ecinstruct import attributes, matching, queries, questions, recommendation, relations, sentiment
from ecellm.ecinstruct.flow.family import Family

FAMILIES: dict[str, Family] = {
    module.FAMILY.name: module.FAMILY
    for module in (attributes, relations, matching, sentiment, recommendation, queries, questions)
}
"""Name -> family."""
FAMILY_OF: dict[str, str] = {task: family.name for family in FAMILIES.values() for task in family.tasks}
"""Task -> the name of its family."""
