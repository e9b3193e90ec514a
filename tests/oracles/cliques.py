"""Robust costs of cliques, and their mean field, clique by clique."""

import numpy as np


def members(cliques):
    """Pairs of the sites and the weights of each clique."""
    ends = zip(cliques.first[:-1], cliques.first[1:], strict=True)
    return [(cliques.site[a:b].tolist(), cliques.weight[a:b].tolist()) for a, b in ends]


def cost(labels, cliques, n_labels):
    """The sum over cliques of min(cap, slope * the least weight that disagrees with a label)."""
    flat = np.ravel(labels).tolist()
    total = 0
    for (sites, weights), slope, cap in zip(
        members(cliques), cliques.slope.tolist(), cliques.cap.tolist(), strict=True
    ):
        disagree = [
            sum(w for i, w in zip(sites, weights, strict=True) if flat[i] != label)
            for label in range(n_labels)
        ]
        total += min(cap, slope * min(disagree))
    return total


def extended_energies(labelings, energies, cliques, n_labels):
    """Energies of labelings with all values of the auxiliary variables, (M, (L + 1)^C).

    ``energies`` (M,) are those without cliques. Variable c is a label, whose disagreement is paid,
    or free, which costs the cap.
    """
    flat = labelings.reshape(len(labelings), -1)
    totals = np.asarray(energies, np.float64)[:, np.newaxis]
    for (sites, weights), slope, cap in zip(
        members(cliques), cliques.slope, cliques.cap, strict=True
    ):
        options = [
            slope * ((flat[:, sites] != label) * np.array(weights)).sum(axis=1)
            for label in range(n_labels)
        ]
        options.append(np.full(len(flat), float(cap)))
        totals = (totals[:, :, np.newaxis] + np.stack(options, 1)[:, np.newaxis]).reshape(
            len(flat), -1
        )
    return totals


def beliefs(marginals, cliques):
    """The best distribution of each auxiliary variable, (C, L + 1); the last value is free."""
    q = np.asarray(marginals, np.float64)
    found = np.zeros((len(cliques), q.shape[1] + 1))
    for c, (sites, weights) in enumerate(members(cliques)):
        expected = [
            cliques.slope[c]
            * sum(w * (1 - q[i, label]) for i, w in zip(sites, weights, strict=True))
            for label in range(q.shape[1])
        ]
        raised = np.exp(-np.array([*expected, cliques.cap[c]]))
        found[c] = raised / raised.sum()
    return found


def messages(marginals, cliques):
    """The expected cost of each label at each site, (n, L), given `beliefs`."""
    told, q = np.zeros(np.shape(marginals)), beliefs(marginals, cliques)
    for c, (sites, weights) in enumerate(members(cliques)):
        for i, w in zip(sites, weights, strict=True):
            for label in range(told.shape[1]):
                others = q[c, :-1].sum() - q[c, label]
                told[i, label] += cliques.slope[c] * w * others
    return told
