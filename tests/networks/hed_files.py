"""Files with the layout of the weights of HED, for networks of a few channels."""

import numpy as np

DEPTHS = (2, 2, 3, 3, 3)


def random_weights(channels=(4, 5, 6, 3, 4), seed=0):
    """Arrays by their names in the file: kernels (height, width, in, out), and biases."""
    rng = np.random.default_rng(seed)
    found, before = {}, 3
    for block, (width, depth) in enumerate(zip(channels, DEPTHS, strict=True), start=1):
        for layer in range(depth):
            name = f"block{block}/layers/conv2d" + (f"_{layer}" if layer else "")
            scale = 0.02 if before == 3 and block == 1 else np.sqrt(2 / (9 * before))
            found[f"{name}/vars/0"] = rng.normal(0, scale, (3, 3, before, width))
            found[f"{name}/vars/1"] = rng.normal(0, 0.1, width)
            before = width
        found[f"dsn{block}/vars/0"] = rng.normal(0, 1, (1, 1, width, 1))
        found[f"dsn{block}/vars/1"] = rng.normal(0, 0.1, 1)
    found["fuse/vars/0"] = rng.normal(0, 0.5, (1, 1, 5, 1))
    found["fuse/vars/1"] = rng.normal(0, 0.1, 1)
    return {name: values.astype(np.float32) for name, values in found.items()}


def write_weights(path, weights=None):
    """Write a file; the caller has h5py."""
    import h5py

    with h5py.File(path, "w") as file:
        for name, values in (random_weights() if weights is None else weights).items():
            file[name] = values
    return path
