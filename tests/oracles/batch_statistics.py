"""AdaBN by its definition: all images through one layer, then all through the next."""

import numpy as np


def adapted_statistics(images, stages):
    """The mean and unbiased variance of the inputs of each batch normalization.

    Images are ``(C, *spatial)``. A stage is (before, weight, bias, eps): the function of one image
    before the normalization, its scale, its shift, and the constant under its root. Each image is
    normalized by its own moments.
    """
    found = []
    for before, weight, bias, eps in stages:
        images = [before(image) for image in images]
        channels = range(len(images[0]))
        values = [np.concatenate([p[c].ravel() for p in images]) for c in channels]
        means = [sum(v) / len(v) for v in values]
        variances = [
            sum((x - mean) ** 2 for x in v) / (len(v) - 1)
            for v, mean in zip(values, means, strict=True)
        ]
        found.append((np.array(means), np.array(variances)))
        for image in images:
            for c in channels:
                own, spread = image[c].mean(), image[c].var()
                image[c] = weight[c] * (image[c] - own) / np.sqrt(spread + eps) + bias[c]
    return found
