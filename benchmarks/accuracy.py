"""The difference of mean field on the lattice from exact Gaussians, and from pydensecrf's lattice.

Exact: forty problems, four photographs at 24 x 32 pixels with ten draws of costs that hold as much
noise as signal, compared with full kernel matrices in 64 bits. pydensecrf: the coffee photograph
at 400 x 600 with five labels. Default parameters of DenseCRF, ten iterations. Run it from the
root of the repository; the exact computation is the oracle of the tests.

Where ours and pydensecrf's differ, both are compared with the same lattice in 64 bits. Where a
pixel lies on the border of a simplex (a barycentric weight of 0), rounding decides which simplex it
is, hence which vertices exist, and a blur that does not find a vertex reads zero there: pydensecrf,
which finds simplices in 32 bits, differs at such pixels.
"""

import numpy as np
from skimage import data
from skimage.transform import resize

from hybridseg.inference import mean_field
from hybridseg.pairwise import BilateralKernel, GaussianKernel
from tests.oracles.dense import mean_field as oracle
from tests.oracles.lattice import apply, build_by_kernels

KERNELS = (GaussianKernel(3.0, 3.0), BilateralKernel(10.0, 80.0, 13.0))


def noisy_costs(image, n_labels, seed):
    """Costs that favor a label by gray value, with as much noise as signal."""
    wanted = (image.mean(axis=-1) * n_labels / 256).astype(int)
    noise = np.random.default_rng(seed).gumbel(size=(*wanted.shape, n_labels))
    return (noise - np.eye(n_labels)[wanted]).astype(np.float32)


def exact(unary, image):
    colors, n_labels = image.astype(np.float32), unary.shape[-1]
    terms = [
        (kernel.weight, oracle.normalized(oracle.gaussian_matrix(kernel.embed(colors))))
        for kernel in KERNELS
    ]
    rows = unary.reshape(-1, n_labels).astype(np.float64)
    return oracle.mean_field(rows, terms, 1 - np.eye(n_labels), 10).reshape(unary.shape)


def peer(unary, image):
    from pydensecrf import densecrf

    height, width, n_labels = unary.shape
    model = densecrf.DenseCRF2D(width, height, n_labels)
    model.setUnaryEnergy(np.ascontiguousarray(unary.reshape(-1, n_labels).T))
    model.addPairwiseGaussian(sxy=3, compat=3)
    model.addPairwiseBilateral(sxy=80, srgb=13, rgbim=np.ascontiguousarray(image), compat=10)
    return np.array(model.inference(10)).T.reshape(unary.shape)


def in_doubles(unary, image):
    """The same lattices, normalization and iterations with 64-bit weights and sums."""
    colors, n_labels = image.astype(np.float32), unary.shape[-1]
    terms = []
    for kernel in KERNELS:
        lattice = build_by_kernels(kernel.embed(colors))
        sums = apply(lattice, np.ones((len(lattice.vertices), 1)))
        terms.append((kernel.weight, lattice, 1 / np.sqrt(sums)))
    costs = unary.reshape(-1, n_labels).astype(np.float64)
    marginals = oracle.softmax(-costs)
    for _ in range(10):
        messages = np.zeros_like(costs)
        for weight, lattice, norm in terms:
            messages += weight * norm * apply(lattice, norm * marginals)
        marginals = oracle.softmax(messages - costs)  # Potts, but for a constant
    return marginals.reshape(unary.shape)


def compared(found, expected):
    """Return the mean and largest difference of marginals, and the fraction of equal labels."""
    difference = np.abs(found - expected)
    same = (found.argmax(-1) == expected.argmax(-1)).mean()
    return difference.mean(), difference.max(), same


def line(name, figures):
    print(f"{name:<34}{figures[0]:>12.2e}{figures[1]:>12.2e}{figures[2]:>12.4%}")


def main() -> None:
    rows = []
    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        image = (resize(getattr(data, name)(), (24, 32), anti_aliasing=True) * 255).astype(np.uint8)
        for seed in range(10):
            unary = noisy_costs(image, 4, seed)
            rows.append(compared(mean_field(unary, image).marginals, exact(unary, image)))
    print(f"{'marginals against':<34}{'mean |dQ|':>12}{'max |dQ|':>12}{'same label':>12}")
    for name, of in (("median", np.median), ("least", np.min), ("greatest", np.max)):
        line(f"exact Gaussians, {name} of {len(rows)}", of(rows, axis=0))
    image = data.coffee()
    unary = noisy_costs(image, 5, 0)
    ours, theirs = mean_field(unary, image).marginals, peer(unary, image)
    doubles = in_doubles(unary, image)
    line("pydensecrf, coffee 400 x 600", compared(ours, theirs))
    line("the same lattice in 64 bits", compared(ours, doubles))
    line("pydensecrf against 64 bits", compared(theirs, doubles))


if __name__ == "__main__":
    main()
