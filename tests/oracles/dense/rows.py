"""Rows between points and tables, slowly: in float64, corner by corner."""

from __future__ import annotations

import numpy as np


def read_row(vertices, weights, table):
    """The weighted sum (width,) of the rows of one point's corners."""
    total = np.zeros(table.shape[1])
    for vertex, weight in zip(vertices, weights, strict=True):
        total += np.float64(weight) * table[vertex]
    return total


def spread_row(vertices, weights, values, n_rows):
    """The table (n_rows, width) with the values of one point at its corners."""
    table = np.zeros((n_rows, len(values)))
    for vertex, weight in zip(vertices, weights, strict=True):
        table[vertex] += np.float64(weight) * values
    return table


def read_rows(vertices, weights, table):
    rows = [read_row(v, w, table) for v, w in zip(vertices, weights, strict=True)]
    return np.array(rows).reshape(len(vertices), table.shape[1])


def spread_rows(vertices, weights, rows, n_rows):
    table = np.zeros((n_rows, rows.shape[1]))
    for v, w, values in zip(vertices, weights, rows, strict=True):
        table += spread_row(v, w, values, n_rows)
    return table


def multiply_rows(rows, matrix):
    """The product of the first columns with the matrix, and zeros in the other columns."""
    n_labels = len(matrix)
    product = rows[:, :n_labels].astype(np.float64) @ matrix
    return np.pad(product, [(0, 0), (0, rows.shape[1] - n_labels)])


def inner_products(left, right, n_labels):
    return left[:, :n_labels].astype(np.float64).T @ right[:, :n_labels]
