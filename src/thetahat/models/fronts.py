"""In what order a sparse symmetric matrix is eliminated, and what is filled in: found once, of its pattern alone.

    struct(j) = (A_j ∪ ⋃_{children c of j} struct(c)) \\ {1 … j},      parent(j) = min struct(j)

Columns that follow each other in the tree with the same structure are one node: k pivots P, and r rows S below them. What
is left of the node once its pivots are eliminated, (r, r), is added into its parent's front, whose rows P ∪ S hold S. Nodes
of one height in the tree do not meet, and those of one size are taken at once: sizes are rounded up, and what is rounded up is
padded by pivots 1 and rows 0. The order is that of least degree (SuperLU's, of an incomplete factor that drops everything).

Source: Liu (1990), The role of elimination trees in sparse factorization; Liu (1992), The multifrontal method for
sparse matrix solution; Ashcraft and Grimes (1989), for nodes of several columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spilu

from .blocks import Array

EXACT, ALONE = (
    4,
    128,
)  # pivots or rows between which sizes are rounded up: few nodes are larger, and all different


class TooFilled(Exception):
    """The factor would hold more numbers than allowed; `least`: so many at least."""

    def __init__(self, least: int):
        super().__init__(least)
        self.least = least


@dataclass(frozen=True, eq=False)
class Group:
    """g nodes of one height and size: fronts (g, k + r, k + r), in which padding stands after the pivots and after the rows.

    Parameters
    ----------
    pivots : (g, k) and
    rows : (g, r), the columns of the matrix, in its own order; of padding `size`, one beyond the last
    entry, to
        the matrix's own entries, and where in the flat fronts each goes
    padding : where in the flat fronts a pivot of padding is
    children
        of each group with parents here: which of its nodes, of which node here, and their rows' places in that front (…, r)
    """

    pivots: Array
    rows: Array
    entry: Array
    to: Array
    padding: Array
    children: list[tuple[int, Array, Array, Array]]

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.pivots), self.pivots.shape[1], self.rows.shape[1]

    @cached_property
    def summing(self) -> tuple[Array, sparse.csr_matrix]:
        """The different rows of all nodes, and the matrix that adds up, for each, what the nodes have there (g r,)."""
        different, which = np.unique(self.rows, return_inverse=True)
        count = self.rows.size
        adds = sparse.csr_matrix(
            (np.ones(count), (which.reshape(-1), np.arange(count))), shape=(len(different), count)
        )
        return different, adds


@dataclass(frozen=True, eq=False)
class Fronts:
    """The tree of a symmetric pattern of `size` columns, in groups, leaves first."""

    size: int
    groups: list[Group]

    @cached_property
    def numbers(self) -> int:
        """How many numbers a factor holds."""
        return sum(g * k * (k + r) for g, k, r in (group.shape for group in self.groups))

    @cached_property
    def held(self) -> int:
        """How many at most while it is made: beside it the fronts of a group, what it leaves, and those of its children."""
        return self.numbers + 4 * max(
            (g * (k + r) ** 2 for g, k, r in (x.shape for x in self.groups)), default=0
        )

    @cached_property
    def products(self) -> float:
        """How many multiplications a factor takes."""
        return float(sum(g * k * (k + r) ** 2 for g, k, r in (group.shape for group in self.groups)))

    @staticmethod
    def of(begin: Array, columns: Array, most: float) -> Fronts:
        """The tree of a pattern with both triangles and its diagonal, sorted by row and column.

        Raises
        ------
        TooFilled
            a factor would hold more than `most` numbers
        """
        m = len(begin) - 1
        rank = _order(begin, columns)
        rows = np.repeat(np.arange(m), np.diff(begin))
        structs = _structures(rank, rows, columns, most)
        return Fronts(m, _groups(_Nodes.of(structs, m), rank, rank[rows], rank[columns]))


def _order(begin: Array, columns: Array) -> Array:
    """The place of each column in an order of least degree."""
    m = len(begin) - 1
    values = np.ones(len(columns))
    values[columns == np.repeat(np.arange(m), np.diff(begin))] = 1.0 + np.diff(begin).max(initial=0)
    matrix = sparse.csc_matrix((values, columns.astype(np.intc), begin.astype(np.intc)), shape=(m, m))
    found = spilu(
        matrix,
        drop_tol=1e10,  # only the order is wanted
        fill_factor=1.0,
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    return np.asarray(found.perm_c).astype(np.int64)


def _structures(rank: Array, rows: Array, columns: Array, most: float) -> list[Array]:
    """struct(j) of each column j in the new order; from where the rest is full, the last one only holds them all."""
    m = len(rank)
    i, j = rank[columns], rank[rows]
    below = i > j
    order = np.lexsort((i[below], j[below]))
    own = np.split(i[below][order], np.cumsum(np.bincount(j[below], minlength=m))[:-1])
    children: list[list[Array]] = [[] for _ in range(m)]
    out: list[Array] = []
    total = 0
    for k in range(m):
        parts = children[k]
        if parts:
            found = np.concatenate([own[k], *(part[1:] for part in parts)])
            found = found if len(parts) == 1 and not len(own[k]) else np.unique(found)
        else:
            found = own[k]
        children[k] = []
        out.append(found)
        total += len(found) + 1
        left = m - k - 1
        if len(found) == left:  # all that follow are one full block
            total += left * (left + 1) // 2
            if total > most:
                raise TooFilled(total)
            return out
        if total > most:
            raise TooFilled(total)
        if len(found):
            children[found[0]].append(found)
    return out


@dataclass(frozen=True, eq=False)
class _Nodes:
    """Which columns are one node: those of node t are pivots[begin[t] : begin[t + 1]], and its rows
    rows[below[t] : below[t + 1]]."""

    of_column: Array
    pivots: Array
    begin: Array
    rows: Array
    below: Array

    @staticmethod
    def of(structs: list[Array], m: int) -> _Nodes:
        known = len(structs)  # the columns from here on are full, and belong to the last known one
        length = np.array([len(s) for s in structs])
        parent = np.array([s[0] if len(s) else -1 for s in structs])
        follows = np.full(known, -1)  # the child that is the same node
        for j in range(known):
            p = parent[j]
            if 0 <= p < known and length[j] == length[p] + 1 and follows[p] < 0:
                follows[p] = j
        node = np.empty(m, dtype=np.int64)
        last: list[int] = []
        for j in range(known):
            if follows[j] >= 0:
                node[j] = node[follows[j]]
                last[node[j]] = j
            else:
                node[j] = len(last)
                last.append(j)
        full = known < m
        if full:
            node[known:] = node[known - 1]
        count = np.bincount(node, minlength=len(last))
        below = [structs[j] for j in last]
        if full:
            below[int(node[known - 1])] = np.zeros(0, dtype=np.int64)
        ends = np.cumsum([0, *(len(b) for b in below)])
        rows = np.concatenate(below) if below else np.zeros(0, dtype=np.int64)
        return _Nodes(
            node, np.argsort(node, kind="stable"), np.concatenate([[0], np.cumsum(count)]), rows, ends
        )

    @cached_property
    def parents(self) -> Array:
        """The node above each one; −1: none."""
        out = np.full(len(self.begin) - 1, -1)
        some = np.diff(self.below) > 0
        out[some] = self.of_column[self.rows[self.below[:-1][some]]]
        return out

    @cached_property
    def heights(self) -> Array:
        """0 of a leaf; else one more than the highest child."""
        out = np.zeros(len(self.begin) - 1, dtype=np.int64)
        for t in np.argsort(self.pivots[self.begin[1:] - 1], kind="stable").tolist():  # children first
            p = self.parents[t]
            if p >= 0:
                out[p] = max(out[p], out[t] + 1)
        return out


def _rounded(size: Array) -> Array:
    """Sizes up to which they are padded: of 4, 5, 6 or 7 units of a power of two."""
    unit = 2.0 ** np.maximum(np.floor(np.log2(np.maximum(size, 1))) - 2, 0)
    few = (size > EXACT) & (size <= ALONE)
    return np.where(few, np.ceil(size / unit) * unit, size).astype(np.int64)


def _groups(nodes: _Nodes, rank: Array, i: Array, j: Array) -> list[Group]:
    """The nodes by height and size; i, j the entries of the matrix in the new order."""
    m, count = len(rank), len(nodes.begin) - 1
    column = np.concatenate([np.argsort(rank), [m]])  # of each place
    k, r = np.diff(nodes.begin), np.diff(nodes.below)
    wide, tall = _rounded(k), _rounded(r)
    # every node's columns, pivots before rows, as one sorted list: where a column is in a front
    owner = np.concatenate([np.repeat(np.arange(count), k), np.repeat(np.arange(count), r)])
    local = np.concatenate(
        [
            np.arange(m) - np.repeat(nodes.begin[:-1], k),
            np.arange(len(nodes.rows)) - np.repeat(nodes.below[:-1], r) + np.repeat(wide, r),
        ]
    )
    keys = owner * m + np.concatenate([nodes.pivots, nodes.rows])
    sort = np.argsort(keys)
    keys, local = keys[sort], local[sort]

    def place(node: Array, at: Array) -> Array:
        found: Array = local[np.searchsorted(keys, node * m + at)]
        return found

    code = np.unique(np.stack([nodes.heights, wide, tall]), axis=1, return_inverse=True)[1].reshape(-1)
    member = np.argsort(code, kind="stable")
    edges = np.concatenate([[0], np.cumsum(np.bincount(code))])
    within = np.empty(count, dtype=np.int64)
    within[member] = np.arange(count) - edges[code[member]]
    front = wide + tall
    own = nodes.of_column[np.minimum(i, j)]
    to = within[own] * front[own] ** 2 + place(own, i) * front[own] + place(own, j)
    by_group = np.argsort(code[own], kind="stable")
    ends = np.concatenate([[0], np.cumsum(np.bincount(code[own], minlength=len(edges) - 1))])
    inside = np.repeat(nodes.parents, r)
    up = np.full(len(nodes.rows), 0)
    up[inside >= 0] = place(inside[inside >= 0], nodes.rows[inside >= 0])
    out = []
    children: list[list[tuple[int, Array, Array, Array]]] = [[] for _ in range(len(edges) - 1)]
    for c in range(len(edges) - 1):
        t = member[edges[c] : edges[c + 1]]
        K, T = int(wide[t[0]]), int(tall[t[0]])
        pivots = _padded(nodes.pivots, nodes.begin, t, K, m)
        rows = _padded(nodes.rows, nodes.below, t, T, m)
        relative = _padded(up, nodes.below, t, T, 0)
        parent = nodes.parents[t]
        for above in np.unique(code[parent[parent >= 0]]).tolist():
            some = np.flatnonzero((parent >= 0) & (code[parent] == above))
            children[above].append((c, some, within[parent[some]], relative[some]))
        which, at = np.nonzero(np.arange(K) >= k[t][:, None])
        padding = which * (K + T) ** 2 + at * (K + T + 1)
        entry = by_group[ends[c] : ends[c + 1]]
        out.append(Group(column[pivots], column[rows], entry, to[entry], padding, children[c]))
    return out


def _padded(values: Array, begin: Array, which: Array, width: int, empty: int) -> Array:
    """Of each node its run of values, (g, width), filled up with `empty`."""
    at = begin[which][:, None] + np.arange(width)
    inside = at < begin[which + 1][:, None]
    if not len(values):
        return np.full(at.shape, empty)
    return np.where(inside, values[np.minimum(at, len(values) - 1)], empty)
