"""Which checkpoints may go. A pure rule; whoever asks does the deleting.

The one decision: nothing goes before enough newer whole ones stand, and a half-written folder goes only when a newer
whole one exists, since an older half may be what another attempt is writing just now.
"""

from __future__ import annotations

from collections.abc import Collection


def to_remove(whole: Collection[int], half: Collection[int], keep: int) -> list[int]:
    """Steps whose folders may be deleted, oldest first.

    Args:
        whole: steps of checkpoints with a marker.
        half: steps of folders without one.
        keep: newest whole checkpoints that stay, at least 1.
    """
    kept = sorted(whole)[-max(1, keep) :]
    if not kept:
        return []
    return sorted([step for step in whole if step < kept[0]] + [step for step in half if step < kept[-1]])
