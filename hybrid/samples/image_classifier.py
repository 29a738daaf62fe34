"""A model for small images whose pixels are columns, row by row: `module=kfp_hybrid.samples.image_classifier`.

Its hyperparameters are `height` and `width` of the images (8 and 8), `white`, the largest value of a pixel (16),
`filters` of the convolutions ([16, 32]), and `dropout` before the last layer (0.3).
"""

from collections.abc import Mapping
from typing import Any

import keras

from kfp_hybrid.components.training.train_model.wide_and_deep import core_inputs
from kfp_hybrid.preprocessing import Preprocessing
from kfp_hybrid.step import StepError


def build_model(preprocessing: Preprocessing, hyperparameters: Mapping[str, Any]) -> keras.Model:
    """A convolutional network from the columns to the probability of each class.

    Args:
        preprocessing: its numeric features are the pixels.
        hyperparameters: see above.

    Raises:
        StepError: the number of pixels is not height times width.
    """
    height, width = (int(hyperparameters.get(name, 8)) for name in ("height", "width"))
    pixels = preprocessing.numeric
    if len(pixels) != height * width or preprocessing.categorical:
        raise StepError(
            f"an image of {height} rows and {width} columns has {height * width} pixels, but the features are "
            f"{len(pixels)} numbers and {len(preprocessing.categorical)} categories; set height, width and features"
        )
    inputs = core_inputs(preprocessing)
    # Every column comes with a mean of 0 and a deviation of 1 of its own; in an image, a grey is the same everywhere.
    white = float(hyperparameters.get("white", 16))
    scale, offset = [pixel.std / white for pixel in pixels], [pixel.mean / white for pixel in pixels]
    layer = keras.layers.Reshape((height, width, 1))(keras.layers.Rescaling(scale, offset)(inputs["numeric"]))
    for filters in hyperparameters.get("filters", (16, 32)):
        layer = keras.layers.Conv2D(int(filters), 3, padding="same", activation="relu")(layer)
        layer = keras.layers.MaxPooling2D()(layer)
    layer = keras.layers.Dropout(float(hyperparameters.get("dropout", 0.3)))(keras.layers.Flatten()(layer))
    activation = {"binary": "sigmoid", "multiclass": "softmax", "regression": "linear"}[preprocessing.task]
    return keras.Model(inputs, keras.layers.Dense(preprocessing.outputs, activation)(layer))
