"""Flows along straight lines, node after node."""


def halved(value, times):
    return value >> times if isinstance(value, int) else value / 2**times


def send_straight(cap, excess, offsets, d, halvings, first, n_nodes, width):
    """Send along arcs ``d`` in a band; ``cap`` (D, N) and ``excess`` (N,), lists, are changed."""
    offset, back = offsets[d], len(offsets) - 1 - d
    nodes = range(first, first + n_nodes)

    def following(v):
        """The node that ``v`` sends to, or None where the line ends."""
        row = v - (v - first) % width
        if abs(offset) == 1:
            return v + offset if row <= v + offset < row + width else None
        whole = first <= row + offset and row + offset + width <= first + n_nodes
        return v + offset if whole else None

    def size(v):
        """The most that ``v`` and those beyond it can take: the deficits on the way, cut off."""
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
