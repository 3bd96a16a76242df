"""What prompts of a device begin with alike is read once: system text, examples, instruction.

The tokens that some prompts share are a tree, of which each prompt sees one path; so tasks may have examples of their
own under one system text. The model reads the tree once, each token seeing those before it on its path (SpecInfer,
Miao et al. 2023, arXiv 2305.09781); then each prompt reads the tokens of its own on top of these keys and values
(Hydragen, Juravsky et al. 2024, arXiv 2402.05099). A gradient flows back through them to the device's adapter.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LEAST = 16
"""Tokens from which on a common beginning is worth a pass of its own."""
_SHARE = 8  # of a device's prompts one in so many must share a token: all others pass over its key and value


@dataclass(frozen=True)
class Prefix:
    """The shared tokens of K devices, Z of each (padded to the most), and which of its P prompts see which."""

    ids: Tensor
    """`(K, Z)`."""
    positions: Tensor
    """In the prompts, from 0, `(K, Z)`."""
    sees: Tensor
    """True where a token (row) sees another (column): itself, and what stands before it; never at padding,
    `(K, Z, Z)`."""
    seen: Tensor
    """True at the tokens that a prompt begins with, `(K, P, Z)`."""
    rest: int
    """Most tokens that a prompt has beside them, at least 1."""

    def to(self, device: torch.device) -> "Prefix":
        """The same on a device."""
        ids, positions, sees, seen = (of.to(device) for of in (self.ids, self.positions, self.sees, self.seen))
        return Prefix(ids, positions, sees, seen, self.rest)


@dataclass(frozen=True)
class _Tree:
    """The shared tokens of one device, parents first."""

    ids: list[int]
    depths: list[int]
    parents: list[int]
    """-1 at the root's children."""
    last: list[int]
    """Of each prompt the last token that it shares, -1 for none."""


def prefix_of(tokens: Sequence[Sequence[Sequence[int]]], least: int) -> Prefix | None:
    """The shared tokens of `[device][prompt]`; None if no device has any.

    A token is shared by at least two prompts of a device and by one in eight; it is never the last of a prompt, since
    that says what comes next.

    Args:
        tokens: of all prompts.
        least: a prompt shares so many tokens or none.
    """
    trees = [_tree(row, least) for row in tokens]
    most = max(len(tree.ids) for tree in trees)
    if not most:
        return None
    k, p = len(trees), max(len(row) for row in tokens)
    ids, positions = torch.zeros(2, k, most, dtype=torch.long)  # (K, Z) each
    sees, seen = torch.zeros(k, most, most, dtype=torch.bool), torch.zeros(k, p, most, dtype=torch.bool)
    rest = 1  # what fills up the rows is one token
    for at, (row, tree) in enumerate(zip(tokens, trees, strict=True)):
        ids[at, : len(tree.ids)] = torch.tensor(tree.ids, dtype=torch.long)
        positions[at, : len(tree.ids)] = torch.tensor(tree.depths, dtype=torch.long)
        for node, parent in enumerate(tree.parents):
            if parent >= 0:
                sees[at, node] = sees[at, parent]
            sees[at, node, node] = True
        for number, (prompt, last) in enumerate(zip(row, tree.last, strict=True)):
            rest = max(rest, len(prompt) - (tree.depths[last] + 1 if last >= 0 else 0))
            if last >= 0:
                seen[at, number] = sees[at, last]
    return Prefix(ids, positions, sees, seen, rest)


def _tree(prompts: Sequence[Sequence[int]], least: int) -> _Tree:
    enough = max(2, -(-len(prompts) // _SHARE))
    ids: list[int] = []
    depths: list[int] = []
    parents: list[int] = []
    last = [-1] * len(prompts)
    alive = [(-1, list(range(len(prompts))))]  # shared tokens so far, with the prompts that go on there
    depth = 0
    while alive:
        branches = []
        for parent, members in alive:
            by_token: dict[int, list[int]] = {}
            for number in members:
                if depth + 1 < len(prompts[number]):
                    by_token.setdefault(prompts[number][depth], []).append(number)
            for token, own in by_token.items():
                if len(own) >= enough:
                    branches.append((len(ids), own))
                    ids.append(token)
                    depths.append(depth)
                    parents.append(parent)
                    for number in own:
                        last[number] = len(ids) - 1
        alive, depth = branches, depth + 1
    return _pruned(_Tree(ids, depths, parents, last), least)


def _pruned(tree: _Tree, least: int) -> _Tree:
    """Without what only prompts share that share less than `least` tokens."""
    last = [node if node >= 0 and tree.depths[node] + 1 >= least else -1 for node in tree.last]
    kept = set()
    for node in set(last):
        while node >= 0 and node not in kept:
            kept.add(node)
            node = tree.parents[node]
    order = sorted(kept)
    new = {-1: -1} | {node: place for place, node in enumerate(order)}
    return _Tree(
        [tree.ids[node] for node in order],
        [tree.depths[node] for node in order],
        [new[tree.parents[node]] for node in order],
        [new[node] for node in last],
    )
