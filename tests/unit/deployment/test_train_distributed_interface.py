"""train_distributed takes what train_model takes, says the same about it, and hands all of it on."""

import ast
import dataclasses
import inspect
from pathlib import Path

import pytest

from kfp_hybrid import components
from kfp_hybrid.components.training.train_distributed.placement import Placement, Pod
from kfp_hybrid.components.training.train_model.parameters import Parameters

OTHER_MEANING = {"strategy", "checkpoint_dir"}  # said in other words, since pods are not this machine


def function_of(name):
    source = Path(components.__path__[0]) / "training" / name / "component.py"
    return next(node for node in ast.parse(source.read_text()).body if isinstance(node, ast.FunctionDef))


def parameters_of(name):
    """Name -> annotation and default, as source text."""
    arguments = function_of(name).args
    defaults = [None] * (len(arguments.args) - len(arguments.defaults)) + arguments.defaults
    return {
        argument.arg: (ast.unparse(argument.annotation), default and ast.unparse(default))
        for argument, default in zip(arguments.args, defaults, strict=True)
    }


def descriptions_of(name, section):
    """Name -> what the docstring says, without line breaks."""
    text = inspect.cleandoc(ast.get_docstring(function_of(name))).partition(f"{section}:\n")[2].partition("\n\n")[0]
    described: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("    ") and not line.startswith("     "):
            current, _, rest = line.strip().partition(": ")
            described[current] = rest
        else:
            described[current] += " " + line.strip()
    return described


def test_it_takes_all_that_train_model_takes_with_the_same_types_and_defaults():
    one, several = parameters_of("train_model"), parameters_of("train_distributed")
    assert {name: several.get(name) for name in one} == one
    assert [name for name in several if name in one] == list(one), "in the same order"


@pytest.mark.parametrize("section", ["Args", "Returns"])
def test_it_describes_what_it_shares_with_train_model_in_the_same_words(section):
    one, several = descriptions_of("train_model", section), descriptions_of("train_distributed", section)
    shared = set(one) - OTHER_MEANING
    assert {name: several[name] for name in shared} == {name: one[name] for name in shared}


def test_every_parameter_reaches_the_nodes_or_the_placement():
    artifacts = {"examples", "statistics", "schema", "model", "logs", "metrics"}
    known = {field.name for model in (Parameters, Placement) for field in dataclasses.fields(model)}
    assert set(parameters_of("train_distributed")) == known | artifacts


def test_train_model_hands_on_every_parameter():
    artifacts = {"examples", "statistics", "schema", "model", "logs", "metrics"}
    assert set(parameters_of("train_model")) - artifacts == {field.name for field in dataclasses.fields(Parameters)}


def test_the_defaults_of_the_interface_are_those_of_the_code():
    for field in dataclasses.fields(Parameters):
        default = parameters_of("train_model")[field.name][1]
        if default is None:
            assert field.default is dataclasses.MISSING
        elif field.default is not dataclasses.MISSING:
            assert list(field.default) == [] if default == "[]" else ast.literal_eval(default) == field.default
        else:
            assert ast.literal_eval(default) == field.default_factory()


def test_the_description_of_pod_names_all_its_keys():
    described = descriptions_of("train_distributed", "Args")["pod"]
    assert [field.name for field in dataclasses.fields(Pod) if field.name not in described] == []
