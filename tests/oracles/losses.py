"""The losses of a batch, pixel by pixel: logits ``(B, L, *spatial)``, labels ``(B, *spatial)``."""

from __future__ import annotations

import itertools
import math

import numpy as np
from scipy import ndimage


def labeled(labels):
    return [place for place in np.ndindex(labels.shape) if labels[place] >= 0]


def proba_at(logits, place):
    scores = logits[(place[0], slice(None), *place[1:])]
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def weighted_cross_entropy(logits, labels, weight_of, factor_of=lambda p: 1.0):
    """The mean is weighted by ``weight_of(place)`` alone, without ``factor_of(p of the truth)``."""
    total = weights = 0.0
    for place in labeled(labels):
        p = proba_at(logits, place)[labels[place]]
        total += weight_of(place) * factor_of(p) * -math.log(p)
        weights += weight_of(place)
    return total / weights if weights else 0.0


def cross_entropy(logits, labels, class_weight):
    return weighted_cross_entropy(logits, labels, lambda place: class_weight[labels[place]])


def focal(logits, labels, gamma, class_weight):
    return weighted_cross_entropy(
        logits, labels, lambda place: class_weight[labels[place]], lambda p: (1 - p) ** gamma
    )


def near_boundary(labels, width):
    """Whether another class is within ``width`` pixels on each axis; labels ``(B, *spatial)``."""
    out = np.zeros(labels.shape, dtype=bool)
    for place in labeled(labels):
        for step in itertools.product(range(-width, width + 1), repeat=labels.ndim - 1):
            there = (place[0], *np.add(place[1:], step))
            inside = all(0 <= i < n for i, n in zip(there, labels.shape, strict=True))
            if inside and labels[there] >= 0 and labels[there] != labels[place]:
                out[place] = True
    return out


def boundary_weighted(logits, labels, interior_weight, width):
    near = near_boundary(labels, width)
    return weighted_cross_entropy(
        logits, labels, lambda place: 1.0 if near[place] else interior_weight
    )


def gap_weights(labels, w0, sigma, background=0, spacing=1.0):
    """U-Net's weight map of one label map, with the distances to all cells."""
    cells = []
    for value in np.unique(labels[labels >= 0]):
        if value != background:
            found, n = ndimage.label(labels == value, np.ones((3,) * labels.ndim))
            cells += [np.argwhere(found == i + 1) * spacing for i in range(n)]
    out = np.zeros(labels.shape)
    for place in np.argwhere(labels == background) if len(cells) > 1 else []:
        distances = sorted(
            np.sqrt(((cell - place * spacing) ** 2).sum(axis=1).min()) for cell in cells
        )
        out[tuple(place)] = w0 * math.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))
    return out


def gap_weighted(logits, labels, w0, sigma):
    extra = np.stack([gap_weights(one, w0, sigma) for one in labels])
    return weighted_cross_entropy(logits, labels, lambda place: 1.0 + extra[place])


def signed_distances(labels, n_classes, spacing=1.0):
    """Signed distances ``(L, *spatial)`` from all pairs of pixels."""
    out = np.zeros((n_classes, *labels.shape))
    places = labeled(labels)
    least = np.min(spacing)
    for index in range(n_classes):
        inside = [place for place in places if labels[place] == index]
        outside = [place for place in places if labels[place] != index]
        if inside and outside:
            for place in inside:
                out[(index, *place)] = -(nearest(place, outside, spacing) - least)
            for place in outside:
                out[(index, *place)] = nearest(place, inside, spacing)
    return out


def nearest(place, others, spacing):
    return min(np.sqrt((((np.subtract(place, o)) * spacing) ** 2).sum()) for o in others)


def boundary_distance(logits, labels, classes, class_weight):
    maps = [signed_distances(one, logits.shape[1]) for one in labels]
    total = weights = 0.0
    for place in labeled(labels):
        p = proba_at(logits, place)
        for index in classes:
            total += class_weight[index] * p[index] * maps[place[0]][(index, *place[1:])]
            weights += class_weight[index]
    return total / weights if weights else 0.0


def groups(labels, per_image):
    """The labeled pixels of each image, or of the batch; images without any are left out."""
    places = labeled(labels)
    if not per_image:
        return [places] if places else []
    found = [[place for place in places if place[0] == i] for i in range(len(labels))]
    return [group for group in found if group]


def mean_over_classes(logits, labels, loss_of, *, classes, per_image, class_weight):
    """The weighted mean of ``loss_of(p, g)``, with lists over pixels of probabilities and truth."""
    total = weights = 0.0
    for group in groups(labels, per_image):
        probas = [proba_at(logits, place) for place in group]
        for index in range(logits.shape[1]):
            truth = [float(labels[place] == index) for place in group]
            if index in classes if classes != "present" else any(truth):
                total += class_weight[index] * loss_of([p[index] for p in probas], truth)
                weights += class_weight[index]
    return total / weights if weights else 0.0


def dice(p, g, smooth, squared):
    both = sum(a * b for a, b in zip(p, g, strict=True))
    sizes = sum(a**2 for a in p) if squared else sum(p)
    return 1 - (2 * both + smooth) / (sizes + sum(g) + smooth)


def tversky(p, g, alpha, beta, gamma, smooth):
    true_positive = sum(a * b for a, b in zip(p, g, strict=True))
    false_positive = sum(a * (1 - b) for a, b in zip(p, g, strict=True))
    false_negative = sum((1 - a) * b for a, b in zip(p, g, strict=True))
    below = true_positive + alpha * false_positive + beta * false_negative + smooth
    return (1 - (true_positive + smooth) / below) ** gamma


def generalized_dice(logits, labels, per_image):
    losses = []
    for group in groups(labels, per_image):
        above = below = 0.0
        for index in range(logits.shape[1]):
            p = [proba_at(logits, place)[index] for place in group]
            g = [float(labels[place] == index) for place in group]
            if any(g):
                above += sum(a * b for a, b in zip(p, g, strict=True)) / sum(g) ** 2
                below += (sum(p) + sum(g)) / sum(g) ** 2
        losses.append(1 - 2 * above / below)
    return float(np.mean(losses)) if losses else 0.0


def lovasz(errors, g):
    """The Lovasz extension by its definition: pixels join the set of mistakes one by one."""
    order = sorted(range(len(errors)), key=lambda i: -errors[i])
    total, before = 0.0, 0.0
    mistakes = set()
    for i in order:
        mistakes.add(i)
        missed = sum(g[j] for j in mistakes)
        alarms = len(mistakes) - missed
        jaccard_loss = (missed + alarms) / (sum(g) + alarms)
        total += errors[i] * (jaccard_loss - before)
        before = jaccard_loss
    return total


def lovasz_softmax(p, g):
    return lovasz([abs(b - a) for a, b in zip(p, g, strict=True)], g)


def lovasz_hinge(logits, labels, per_image):
    losses = []
    for group in groups(labels, per_image):
        g = [float(labels[place]) for place in group]
        scores = [logits[(p[0], 1, *p[1:])] - logits[(p[0], 0, *p[1:])] for p in group]
        errors = [max(0.0, 1 - s * (2 * t - 1)) for s, t in zip(scores, g, strict=True)]
        losses.append(lovasz(errors, g))
    return float(np.mean(losses)) if losses else 0.0


def class_counts(y, classes):
    """For each class: its pixels, labeled pixels of the maps with it, and their number."""
    rows = []
    for value in classes:
        holding = [labels for labels in y if (labels == value).any()]
        rows.append(
            (
                sum(int((labels == value).sum()) for labels in y),
                sum(int((labels >= 0).sum()) for labels in holding),
                len(holding),
            )
        )
    return np.array(rows).T
