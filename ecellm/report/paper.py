"""The paper's own figures, for reference: what its authors published for their data set.

Facts out of the tables on the authors' site (arXiv 2402.08831), kept as `paper.csv` with the address that each number
is from; the file also holds figures of other papers, under tables of their own names, which are not used here. They
were measured on another data set than ours unless the published ECInstruct was evaluated, so they stand beside our
tables and are never subtracted from them.
"""

from __future__ import annotations

import csv
from importlib import resources

PRIMARY = {
    "AVE": "F1*", "PRP": "Macro F1", "PM": "F1", "SA": "Macro F1", "SR": "HR@1",
    "MPC": "Accuracy", "PSI": "F1", "QPR": "NDCG", "AP": "F1", "AG": "F_BERT",
}  # fmt: skip
"""The paper's name of each task's primary metric, tasks in its order."""
SHOWN = ("eCeLLM-L", "eCeLLM-M", "eCeLLM-S", "GPT-4 Turbo", "Gemini Pro", "Claude 2.1", "SoTA task-specific model")
SITE = "https://ninglab.github.io/eCeLLM/"
INSTRUCTIONS = "Diverse_Instruction"
"""What the overall tables are of; the authors publish no figures of the other settings."""
_OVERALL = ("overall_IND", "overall_OOD")
"""Tables with one row for each system; the others take one task apart."""


def figures() -> dict[tuple[str, str, str, str], float]:
    """Every number of the overall tables by (IND or OOD, system, task id, the paper's metric name)."""
    text = resources.files("ecellm.report").joinpath("paper.csv").read_text(encoding="utf-8")
    return {
        (line["setting"], line["system"], line["task"], line["metric"]): float(line["value"])
        for line in csv.DictReader(text.splitlines())
        if line["table"] in _OVERALL
    }


def primary_rows(domain: str, tasks: list[str]) -> list[tuple[str, list[float | None]]]:
    """One row for each system shown: its primary metrics for these tasks; None where the paper has none."""
    known = figures()
    rows = [(system, [known.get((domain, system, task, PRIMARY[task])) for task in tasks]) for system in SHOWN]
    return [(system, values) for system, values in rows if any(value is not None for value in values)]
