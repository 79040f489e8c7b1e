"""QPR: In which order do two to four products answer a query: letters, best first."""

from __future__ import annotations

from ecellm.tasks import options
from ecellm.tasks.base import Task
from ecellm.tasks.ranking import Ranking
from ecellm.tasks.shorten import structured

TASK = Task(
    id="QPR",
    name="Query_Product_Rank",
    category="query product matching",
    kind="ranking",
    primary="NDCG",
    max_new_tokens=16,
    rules=Ranking(),
    options=options.orders,
    shortener=structured,
)
