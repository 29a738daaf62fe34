"""How far scores are from those that they should be."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def largest_difference(found: Array, expected: Array) -> float:
    """The largest difference of a score: absolute, or relative to scores greater than 1.

    Args:
        found: [N, outputs].
        expected: of the same shape.

    Returns:
        Infinity where only one of two scores is NaN; two that are NaN, or the same infinity, do not differ.
    """
    scores = expected.astype(np.float64)
    with np.errstate(invalid="ignore"):
        difference = np.abs(found - scores) / np.maximum(1.0, np.abs(scores))
    same = (found == scores) | (np.isnan(found) & np.isnan(scores))
    difference[same] = 0.0
    difference[np.isnan(difference)] = np.inf
    return float(difference.max(initial=0.0))
