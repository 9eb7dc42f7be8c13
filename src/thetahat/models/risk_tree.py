"""A binary tree of event times: sums over risk sets in which nothing is subtracted and no weight is lost.

The slots k = 0 … m − 1 are the leaves. A range of slots is the union of at most 2 log₂ m nodes, so a row that is
at risk at a range adds its weight to those nodes, and the sum of a risk set is that of a leaf and all nodes
above it. All weights are held as logarithms, so that a row of weight e^800 beside one of e^−800 costs no digit
of either.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


class Tree:
    """The ranges first ≤ k < stop of n rows, as nodes.

    `row` and `node`, (pairs,): the nodes of each row's range. Node 1 is the root, nodes 2i and 2i + 1 are below
    node i, leaf k is node `width` + k.
    """

    def __init__(self, first: Tensor, stop: Tensor, size: int):
        self.size, self.rows = size, len(first)
        self.width = 1 << max(0, (size - 1).bit_length())
        low, high = first + self.width, stop + self.width
        every = torch.arange(len(first))
        rows, nodes = [], []
        while bool((low < high).any()):
            odd = (low < high) & (low % 2 == 1)
            rows.append(every[odd])
            nodes.append(low[odd])
            low = low + odd.long()
            odd = (low < high) & (high % 2 == 1)
            high = high - odd.long()
            rows.append(every[odd])
            nodes.append(high[odd])
            low, high = low // 2, high // 2
        self.row, self.node = torch.cat(rows), torch.cat(nodes)

    def levels(self) -> list[slice]:
        """The nodes of each depth, the root's first, the leaves' last."""
        return [slice(1 << depth, 2 << depth) for depth in range(self.width.bit_length())]

    def leaves(self, nodes: Tensor) -> Tensor:
        return nodes[..., self.width : self.width + self.size]

    def weighed(self, log_weight: Tensor) -> Logged:
        return Logged(self, log_weight)

    def largest(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """max over R_k of values (n,), and a row that attains it, (m,) each."""
        most = values.new_full((2 * self.width,), -torch.inf)
        most.scatter_reduce_(0, self.node, values[self.row], "amax")
        hit = values[self.row] == most[self.node]
        where = torch.zeros(2 * self.width, dtype=torch.long)
        where[self.node[hit]] = self.row[hit]
        for above, here in zip(self.levels(), self.levels()[1:], strict=False):
            up, who = most[above].repeat_interleave(2), where[above].repeat_interleave(2)
            better = up > most[here]
            most[here], where[here] = (
                torch.where(better, up, most[here]),
                torch.where(better, who, where[here]),
            )
        return self.leaves(most), self.leaves(where)


class Logged:
    """Risk sets whose rows have the weights exp(ζ_i), by the tree; see `risk_sets.Weighed`."""

    def __init__(self, tree: Tree, log_weight: Tensor):
        self.tree, self.log_weight = tree, log_weight
        own = log_weight[tree.row]
        most = own.new_full((2 * tree.width,), -torch.inf).scatter_reduce_(0, tree.node, own, "amax")
        part = torch.zeros_like(most).index_add_(
            0, tree.node, torch.exp(own - most[tree.node]).nan_to_num(0.0)
        )
        self.own = torch.where(part > 0, most + torch.log(part), -torch.inf)  # of the node alone
        total = self.own.clone()
        for above, here in zip(tree.levels(), tree.levels()[1:], strict=False):
            total[here] = torch.logaddexp(total[here], total[above].repeat_interleave(2))
        self.total = total
        self.log_total = tree.leaves(total)

    def means(self, X: Tensor) -> Tensor:
        tree = self.tree
        share = torch.exp(self.log_weight[tree.row] - self.own[tree.node]).nan_to_num(0.0)
        out = X.new_zeros(len(X), 2 * tree.width)
        for j, x in enumerate(X):
            out[j].index_add_(0, tree.node, share * x[tree.row])
        for above, here in zip(tree.levels(), tree.levels()[1:], strict=False):
            kept = torch.exp(self.own[here] - self.total[here]).nan_to_num(0.0)
            came = torch.exp(self.total[above].repeat_interleave(2) - self.total[here]).nan_to_num(0.0)
            out[:, here] = out[:, here] * kept + out[:, above].repeat_interleave(2, 1) * came
        return tree.leaves(out)

    def blocks(self, X: Tensor) -> Iterator[tuple[int, int, Tensor]]:
        yield 0, self.tree.size, self.means(X)

    def spread(self, a: Tensor) -> Tensor:
        tree = self.tree
        flat = a.reshape(-1, a.shape[-1])
        least = a.new_full((2 * tree.width,), torch.inf)
        sums = a.new_zeros(len(flat), 2 * tree.width)
        least[tree.width : tree.width + tree.size] = self.log_total
        sums[:, tree.width : tree.width + tree.size] = flat
        # a node holds Σ a_k exp(least − log_total_k) over its leaves, least the smallest log_total among them
        for above, here in reversed(list(zip(tree.levels(), tree.levels()[1:], strict=False))):
            pair = least[here].reshape(-1, 2)
            least[above] = pair.min(1).values
            part = torch.exp(least[above][:, None] - pair).nan_to_num(0.0)
            sums[:, above] = (sums[:, here].reshape(len(flat), -1, 2) * part).sum(-1)
        share = torch.exp(self.log_weight[tree.row] - least[tree.node])
        out = a.new_zeros(len(flat), tree.rows)
        for j in range(len(flat)):
            out[j].index_add_(0, tree.row, share * sums[j, tree.node])
        return out.reshape(*a.shape[:-1], tree.rows)
