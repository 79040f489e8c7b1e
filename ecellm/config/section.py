"""What sections of a run file are made of: their base class and the types that several of them share."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

TaskId = Literal["AVE", "PRP", "PM", "SA", "SR", "MPC", "PSI", "QPR", "AP", "AG"]
TASK_IDS: tuple[TaskId, ...] = ("AVE", "PRP", "PM", "SA", "SR", "MPC", "PSI", "QPR", "AP", "AG")
Kind = Literal["Single_Instruction", "Diverse_Instruction", "Unseen_Instruction", "Diverse_Instruction_1-shot"]
Count = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Location = Annotated[str, AfterValidator(os.path.expanduser)]
"""A path, `~` allowed, or an address."""


class Section(BaseModel):
    """A frozen part of the run file that knows its own keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
