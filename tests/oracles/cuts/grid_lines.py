"""Flows along straight lines, one node at a time."""


def halved(value, times):
    return value >> times if isinstance(value, int) else value / 2**times


def send_straight(cap, excess, offsets, d, halvings, first, n_nodes, width):
    """Send flow along arcs ``d`` in a band; change the lists ``cap`` (D, N) and ``excess`` (N,)."""
    offset, back = offsets[d], len(offsets) - 1 - d
    nodes = range(first, first + n_nodes)

    def following(v):
        """The next node after ``v``, or None at the end of the line."""
        row = v - (v - first) % width
        if abs(offset) == 1:
            return v + offset if row <= v + offset < row + width else None
        whole = first <= row + offset and row + offset + width <= first + n_nodes
        return v + offset if whole else None

    def size(v):
        """The most that ``v`` and the nodes after it can take: deficits, limited by capacities."""
        w = following(v)
        beyond = 0 if w is None else min(cap[d][v], takes.get(w, 0))
        return halved(beyond - min(excess[v], 0), halvings)

    takes = {}
    for v in reversed(nodes) if offset > 0 else nodes:
        takes[v] = size(v)
    for v in nodes if offset > 0 else reversed(nodes):
        w = following(v)
        if w is not None:
            sent = max(min(cap[d][v], takes[w], excess[v]), 0)
            excess[v] -= sent
            excess[w] += sent
            cap[d][v] -= sent
            cap[back][w] += sent
