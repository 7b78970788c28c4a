"""The definition of draft verification: which guessed tokens a target model confirms."""

from __future__ import annotations

from collections.abc import Sequence


def verify_greedy(
    token_ids: Sequence[int], parents: Sequence[int], target_ids: Sequence[int]
) -> tuple[list[int], int, list[int]]:
    """Walks down from the root while some child is what the target would have written.

    ``target_ids [n + 1]`` holds the target's choice after the root (row 0) and after each node (row ``i + 1``).
    Returns the accepted ids, the target's own next id, and the accepted nodes. Among equal siblings the first wins.
    """
    path: list[int] = []
    node = -1
    while True:
        wanted = target_ids[node + 1]
        children = [
            i for i, (t, p) in enumerate(zip(token_ids, parents, strict=True)) if (p, t) == (node, wanted)
        ]
        if not children:
            return [token_ids[i] for i in path], wanted, path
        node = children[0]
        path.append(node)
