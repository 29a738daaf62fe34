"""The signature `core` of a model of train_model: the scores of `serving_default` in less time.

It takes rows that numpy and Arrow have preprocessed, so that no text crosses into TensorFlow. What was evaluated is
`serving_default`: `core` stands in for it only after both were asked about the same rows.
"""

import logging
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kfp_hybrid.preprocessing import Preprocessing, Rows
from kfp_hybrid.scoring.difference import Array, largest_difference
from kfp_hybrid.step import StepError

if TYPE_CHECKING:
    from kfp_hybrid.scoring.saved_model import ServingModel

NAME = "core"
SCORES = "scores"
TOLERANCE = 1e-5  # what train_model allows between `core` and `serving_default`
FEWEST_ROWS, MOST_ROWS = 256, 1024  # that are made up
UNKNOWN = {"string": "no such value", "int": -987654321}  # in no vocabulary

log = logging.getLogger(__name__)


class Core:
    """The signature of a loaded model.

    Args:
        signature: the signature.
        preprocessing: makes its inputs.
    """

    def __init__(self, signature: Any, preprocessing: Preprocessing) -> None:
        import tensorflow as tf

        self.preprocessing = preprocessing
        self._signature = signature
        self._tensor = tf.constant

    def scores(self, inputs: Mapping[str, Array]) -> Array:
        """Scores of N rows.

        Args:
            inputs: what `Preprocessing.transform` has made of them.

        Returns:
            float32 [N, outputs].
        """
        tensors = {name: self._tensor(values) for name, values in inputs.items()}
        scores = self._signature(**tensors)[SCORES].numpy().astype(np.float32, copy=False)
        return scores.reshape(len(scores), -1)

    def difference(self, rows: Rows, expected: Array) -> float | None:
        """Find out whether it may stand in for `serving_default`; the log says so, and by how much they differ.

        Args:
            rows: N raw rows.
            expected: their scores by `serving_default`, [N, outputs].

        Returns:
            The largest difference of a score; None if it is too large, or `core` fails.
        """
        import tensorflow as tf

        try:
            scores = self.scores(self.preprocessing.transform(rows))
        except (StepError, ValueError, TypeError, tf.errors.OpError) as error:
            log.warning("the signature core fails, so serving_default is used: %s", str(error).splitlines()[0])
            return None
        difference = largest_difference(scores, expected) if scores.shape == expected.shape else np.inf
        if difference > TOLERANCE:
            log.warning(
                "the signature core differs from serving_default by %.2g on %d rows, "
                "so the slower serving_default is used",
                *(difference, len(expected)),
            )
            return None
        log.info("core differs from serving_default by %.2g on %d rows, so it is used", difference, len(expected))
        return difference


def find_core(model: "ServingModel", preprocessing: Preprocessing | None) -> Core | None:
    """The signature `core` of a model; None when it has none, or no preprocessing.

    Args:
        model: the loaded model.
        preprocessing: what came with it.
    """
    signature = model.signature(NAME)
    if signature is None or preprocessing is None or SCORES not in signature.structured_outputs:
        return None
    return Core(signature, preprocessing)


def made_up_rows(preprocessing: Preprocessing) -> dict[str, list[Any]]:
    """Rows that nobody has observed, but which hold what the preprocessing tells apart.

    The first has no value at all. The others have numbers in each bucket and outside of what was seen in training, each
    category that is known (of large vocabularies the first thousand), one that is not, and gaps.

    Returns:
        Column -> N values, always the same ones.
    """
    values: dict[str, list[Any]] = {}
    for number in preprocessing.numeric:
        far = 4 * number.std
        values[number.name] = [None, number.mean - far, number.mean, number.mean + far, *number.boundaries]
    for category in preprocessing.categorical:
        known = category.vocabulary[:MOST_ROWS]
        values[category.name] = [None, UNKNOWN[category.type], *(map(int, known) if category.type == "int" else known)]
    count = min(MOST_ROWS, max(FEWEST_ROWS, *map(len, values.values())))
    draw = random.Random(0)  # noqa: S311 - no secret
    rows: dict[str, list[Any]] = {}
    for name, of_column in values.items():
        repeated = (of_column * (count // len(of_column) + 1))[: count - 1]
        draw.shuffle(repeated)
        rows[name] = [None, *repeated]
    return rows
