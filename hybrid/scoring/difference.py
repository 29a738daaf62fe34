"""How far scores are from those that they should be."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def largest_difference(found: Array, expected: Array) -> float:
    """The largest of `differences`; 0 without rows."""
    return float(differences(found, expected).max(initial=0.0))


def differences(found: Array, expected: Array) -> Array:
    """How much scores differ: absolutely, or relative to what is greater than 1, the score or the spread of all scores.

    A regression computes in standard deviations of its label, so a price of about 0 is as exact as prices usually are.

    Args:
        found: [N, outputs].
        expected: of the same shape.

    Returns:
        float64 [N, outputs]; infinity where only one of two scores is NaN. Two that are NaN, or the same infinity, do
        not differ.
    """
    scores = expected.astype(np.float64)
    spread = np.std(np.where(np.isfinite(scores), scores, 0.0), axis=0) if len(scores) else 0.0
    with np.errstate(invalid="ignore"):
        difference = np.abs(found - scores) / np.maximum(np.maximum(1.0, spread), np.abs(scores))
    same = (found == scores) | (np.isnan(found) & np.isnan(scores))
    difference[same] = 0.0
    difference[np.isnan(difference)] = np.inf
    return difference
