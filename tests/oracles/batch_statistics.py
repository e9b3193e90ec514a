"""AdaBN by its definition: all pictures through one layer, then all through the next."""

import numpy as np


def adapted_statistics(pictures, stages):
    """The mean and unbiased variance of what each batch normalization is given.

    Pictures are ``(C, *spatial)``. A stage is (before, weight, bias, eps): what stands before the
    normalization, as a function of one picture, and what it multiplies by and adds. Each picture
    is normalized by its own moments.
    """
    found = []
    for before, weight, bias, eps in stages:
        pictures = [before(picture) for picture in pictures]
        channels = range(len(pictures[0]))
        values = [np.concatenate([p[c].ravel() for p in pictures]) for c in channels]
        means = [sum(v) / len(v) for v in values]
        variances = [
            sum((x - mean) ** 2 for x in v) / (len(v) - 1)
            for v, mean in zip(values, means, strict=True)
        ]
        found.append((np.array(means), np.array(variances)))
        for picture in pictures:
            for c in channels:
                own, spread = picture[c].mean(), picture[c].var()
                picture[c] = weight[c] * (picture[c] - own) / np.sqrt(spread + eps) + bias[c]
    return found
