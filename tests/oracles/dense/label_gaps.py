"""The smallest gap between each label's cost and the least cost."""

from __future__ import annotations


def label_gaps(unary):
    return (unary - unary.min(axis=1, keepdims=True)).min(axis=0)
