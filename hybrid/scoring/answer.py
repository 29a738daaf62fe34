"""What the scores of a model are about: the task, the label and the classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp_hybrid.preprocessing import TASKS, Label, Preprocessing
from kfp_hybrid.step import StepError


@dataclass(frozen=True)
class Answer:
    """What a model's scores are about.

    Args:
        task: binary, multiclass or regression.
        label: the label column.
        classes: class values in the order of the scores (binary: negative, positive); () for regression.
    """

    task: str
    label: str
    classes: tuple[Any, ...]

    def encoder(self) -> Preprocessing:
        """What turns raw labels into positions in `classes`."""
        return Preprocessing(self.task, Label(self.label, self.classes), (), ())


def find_answer(model: Path, label: str | None, task: str, classes: Sequence[Any]) -> Answer:
    """What a model's scores are about: from the model itself where it says so, otherwise from the parameters.

    Args:
        model: SavedModel directory.
        label: the label column, "" for the one the model names, None if nobody will look at labels.
        task: a task or "auto".
        classes: class values or nothing.

    Raises:
        StepError: there is no model, it contradicts the parameters, or neither of them says enough.
    """
    from kfp_hybrid.scoring.saved_model import PREPROCESSING, saved_preprocessing  # with pyarrow, which few need here

    if task not in ("auto", *TASKS):
        raise StepError(f"task is {task!r}; it must be one of auto, {', '.join(TASKS)}")
    if not (model / "saved_model.pb").is_file():
        raise StepError(f"{model} is not a SavedModel: it has no saved_model.pb")
    given = tuple(_whole(value) for value in classes)
    if preprocessing := saved_preprocessing(model):
        return _own_answer(preprocessing, label, task, given)
    if label == "" or task == "auto":
        raise StepError(
            f"the model does not say what it predicts (it has no {PREPROCESSING}); "
            f"give label (a column) and task ({', '.join(TASKS)})"
        )
    if task == "regression":
        given = ()
    elif task == "binary":
        given = given or (0, 1)
        if len(given) != 2:
            raise StepError(f"classes has {len(given)} values; a binary task has two: negative, positive")
    elif len(given) < 2:
        raise StepError("give classes: the class values in the order of the model's scores")
    return Answer(task, label or "", given)


def _own_answer(preprocessing: Preprocessing, label: str | None, task: str, classes: tuple[Any, ...]) -> Answer:
    if task not in ("auto", preprocessing.task):
        raise StepError(f"task is {task!r}, but the model was trained for {preprocessing.task}; leave task at auto")
    own = preprocessing.label.classes
    if classes and list(map(str, classes)) != list(map(str, own)):
        raise StepError(f"classes is {list(classes)}, but the model's classes are {list(own)}; leave classes empty")
    return Answer(preprocessing.task, label or preprocessing.label.name, own)


def _whole(value: Any) -> Any:
    """1 for 1.0: some runners turn whole numbers in lists into floats."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
