"""Slow twin of ``kernels.contours.chan_vese``: one pixel at a time, in Python's floats."""

from __future__ import annotations

import math


def iterate_level_set(image, phi, new, means, mu, weights, dt, with_energy, sums):
    height, width = image.shape
    sums[:, : 7 if with_energy else 3] = 0
    for y in range(height):
        for x in range(width):
            value = float(image[y, x])
            here, west, east = (float(phi[y + 1, x + k]) for k in (1, 0, 2))
            north, south = float(phi[y, x + 1]), float(phi[y + 2, x + 1])
            along_x, along_y = (east - west) / 2, (south - north) / 2
            delta = 1 / (1 + here**2)
            weighted = total = 0.0
            for other, step, cross in (
                (east, east - here, along_y),
                (west, here - west, along_y),
                (south, south - here, along_x),
                (north, here - north, along_x),
            ):
                weight = 1 / math.sqrt(1e-16 + step**2 + cross**2)
                weighted += weight * other
                total += weight
            force = -weights[0] * (value - means[0]) ** 2 + weights[1] * (value - means[1]) ** 2
            moved = (here + dt * delta * (mu * weighted + force)) / (1 + mu * dt * delta * total)
            new[y + 1, x + 1] = moved
            above = moved > 0
            sums[y, :3] += (above, value * above, (moved - here) ** 2)
            if with_energy:
                step = 0.5 * (1 + 2 / math.pi * math.atan(here))
                length = delta * math.hypot(along_x, along_y)
                sums[y, 3:] += (step, value * step, value**2 * step, length)
    new[:, 0], new[:, -1] = new[:, 1], new[:, -2]
    new[0], new[-1] = new[1], new[-2]
