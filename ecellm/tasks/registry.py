"""The ten tasks by every name in circulation (spec A.2). An unknown name is an error, never a silent nothing."""

from __future__ import annotations

from ecellm.errors import ConfigError
from ecellm.tasks import (
    answer_generation,
    answerability_prediction,
    attribute_value_extraction,
    multiclass_product_classification,
    product_matching,
    product_relation_prediction,
    product_substitute_identification,
    query_product_ranking,
    sentiment_analysis,
    sequential_recommendation,
)
from ecellm.tasks.base import Task

TASKS: dict[str, Task] = {
    module.TASK.id: module.TASK
    for module in (
        attribute_value_extraction,
        product_relation_prediction,
        product_matching,
        sentiment_analysis,
        sequential_recommendation,
        multiclass_product_classification,
        product_substitute_identification,
        query_product_ranking,
        answerability_prediction,
        answer_generation,
    )
}
"""In the paper's order."""

_EVALUATOR_SPELLINGS = {
    "Product_Relation_Predicition": "PRP",
    "Product_Substitue_Identification": "PSI",
    "Query_Product_Ranking": "QPR",
}
ALIASES: dict[str, str] = {
    **{task.id: task.id for task in TASKS.values()},
    **{task.name: task.id for task in TASKS.values()},
    **_EVALUATOR_SPELLINGS,
}


def task(name: str) -> Task:
    """The task of an id or of any spelling of its name. Raises ConfigError for anything else."""
    if name not in ALIASES:
        raise ConfigError(
            "unknown task",
            found=name,
            expected=", ".join(sorted(ALIASES)),
            mend="use one of these names, letter for letter",
        )
    return TASKS[ALIASES[name]]
