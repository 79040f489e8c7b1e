"""Prompts as a tree over their token ids: what several of them begin with stands there once. Pure, no torch.

Instructions and headings are the same in hundreds of prompts, and on a CPU the prompt is most of the work, so a shared
beginning is computed once and every prompt goes on from it. The one decision: a node is split off wherever that saves
more tokens than `LEAST_SAVED`; below it, the few tokens are cheaper than another piece of work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LEAST_SAVED = 4
"""Tokens that a shared node must save over all prompts behind it."""


@dataclass(frozen=True, slots=True)
class Node:
    """A run of tokens. Nodes come in depth-first order, so a node's parent stands before it."""

    parent: int
    """Index of the node that it follows; -1: it begins the prompt."""
    start: int
    """Position of its first token in the prompts that go through it."""
    tokens: tuple[int, ...]
    prompt: int
    """The prompt that ends here, which makes it a leaf; -1: it is shared."""


def grow(prompts: Sequence[Sequence[int]]) -> list[Node]:
    """The tree of prompts, none of them empty. Each prompt has a leaf of its own with at least its last token.

    >>> [(node.parent, node.tokens, node.prompt) for node in grow([(1, 2, 3, 4, 5, 6), (1, 2, 3, 4, 5, 7)])]
    [(-1, (1, 2, 3, 4, 5), -1), (0, (6,), 0), (0, (7,), 1)]
    """
    order = sorted(range(len(prompts)), key=lambda i: tuple(prompts[i]))
    nodes: list[Node] = []
    # Groups of prompts that are equal up to `depth`, of which tokens up to `start` stand in `parent` already.
    stack = [(0, len(order), 0, 0, -1)]
    while stack:
        low, high, start, depth, parent = stack.pop()
        if low == high:
            continue
        first = prompts[order[low]]
        if high - low == 1:
            nodes.append(Node(parent, start, tuple(first[start:]), order[low]))
            continue
        shared = _shared(first, prompts[order[high - 1]], depth)
        # A leaf keeps its last token, whose logits are what is asked for.
        run = min(shared, min(len(prompts[order[i]]) for i in range(low, high)) - 1)
        if (run - start) * (high - low - 1) >= LEAST_SAVED:
            nodes.append(Node(parent, start, tuple(first[start:run]), -1))
            start, parent = run, len(nodes) - 1
        # The stack hands out what was put on it last, so the groups go on it from the end.
        groups = _groups(prompts, order, low, high, shared)
        stack.extend((a, b, start, shared, parent) for a, b in reversed(groups))
    return nodes


def saved_share(prompts: Sequence[Sequence[int]], nodes: Sequence[Node]) -> float:
    """The part of the prompts' tokens that need not be computed, 0 to 1."""
    asked = sum(len(prompt) for prompt in prompts)
    return 1 - sum(len(node.tokens) for node in nodes) / asked if asked else 0.0


def _shared(one: Sequence[int], other: Sequence[int], depth: int) -> int:
    """How many tokens two prompts begin with in common, knowing that they agree up to `depth`."""
    limit = min(len(one), len(other))
    while depth < limit and one[depth] == other[depth]:
        depth += 1
    return depth


def _groups(
    prompts: Sequence[Sequence[int]], order: Sequence[int], low: int, high: int, at: int
) -> list[tuple[int, int]]:
    """Ranges of `order` with the same token at `at`; each prompt that ends there makes a range of its own."""
    found: list[tuple[int, int]] = []
    begin = low
    for i in range(low, high):
        prompt, before = prompts[order[i]], prompts[order[i - 1]] if i > low else None
        if before is not None and (len(before) <= at or before[at] != prompt[at]):
            found.append((begin, i))
            begin = i
    return [*found, (begin, high)]
