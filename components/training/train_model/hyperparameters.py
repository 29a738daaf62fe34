"""The hyperparameters of the built-in model. No TensorFlow here: they are checked before it is imported."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from kfp_hybrid.step import StepError

ACTIVATIONS = ("relu", "gelu", "silu", "elu", "selu", "tanh")


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """The shape of the wide-and-deep model.

    Attributes:
        hidden_units: width of each hidden layer of the deep part; empty for none.
        embedding_dim: numbers that stand for one value of a categorical feature.
        activation: activation of the hidden layers.
        dropout: share of hidden activations dropped in training, 0 <= dropout < 1.
        l2: L2 penalty on kernels and embeddings, >= 0.
        wide: whether there is a wide part.
    """

    hidden_units: tuple[int, ...] = (64, 32)
    embedding_dim: int = 8
    activation: str = "relu"
    dropout: float = 0.0
    l2: float = 0.0
    wide: bool = True

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> "Hyperparameters":
        """Read hyperparameters as a pipeline gives them (whole numbers may arrive as floats).

        Args:
            values: any of the attributes by name.

        Raises:
            StepError: a name is unknown or a value is out of range.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        if unknown := [name for name in values if name not in known]:
            raise StepError(
                f"hyperparameter {unknown[0]!r} is unknown to the built-in model; it has {', '.join(known)}"
            )
        chosen = dict(values)
        try:
            if "hidden_units" in chosen:
                chosen["hidden_units"] = tuple(_whole(units) for units in chosen["hidden_units"])
            if "embedding_dim" in chosen:
                chosen["embedding_dim"] = _whole(chosen["embedding_dim"])
            parsed = cls(**chosen)
            parsed._validate()
        except (TypeError, ValueError) as error:
            raise StepError(f"a hyperparameter of the built-in model is wrong: {error}") from None
        return parsed

    def _validate(self) -> None:
        if any(units < 1 for units in self.hidden_units):
            raise ValueError(f"hidden_units are {list(self.hidden_units)}, each must be at least 1")
        if self.embedding_dim < 1:
            raise ValueError(f"embedding_dim is {self.embedding_dim}, must be at least 1")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation is {self.activation!r}, must be one of {', '.join(ACTIVATIONS)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}, must be at least 0 and less than 1")
        if self.l2 < 0:
            raise ValueError(f"l2 is {self.l2}, must not be negative")
        if not isinstance(self.wide, bool):
            raise ValueError(f"wide is {self.wide!r}, must be true or false")


def _whole(value: Any) -> int:
    if isinstance(value, bool) or value != int(value):
        raise ValueError(f"{value!r} is not a whole number")
    return int(value)
