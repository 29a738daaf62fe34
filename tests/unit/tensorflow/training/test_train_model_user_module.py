import sys

import pytest

from kfp_hybrid.components.training.train_model.hyperparameters import Hyperparameters
from kfp_hybrid.components.training.train_model.user_module import UserModule
from kfp_hybrid.step import StepError

SOURCE = """
SCALE = 2

def build_model(preprocessing, hyperparameters):
    return preprocessing, hyperparameters["units"] * SCALE
"""


def run(module, hyperparameters):
    module.run()
    return module.build_model("constants", hyperparameters)


def test_a_module_can_be_source_text():
    assert run(UserModule(SOURCE), {"units": 3}) == ("constants", 6)


def test_a_module_can_be_a_file(tmp_path):
    (tmp_path / "mine.py").write_text(SOURCE)
    module = UserModule(str(tmp_path / "mine.py"))
    assert run(module, {"units": 3}) == ("constants", 6)
    assert (module.name, module.source) == ("mine.py", SOURCE)


def test_a_module_can_be_in_a_package(tmp_path, monkeypatch):
    package = tmp_path / "my_models"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "mine.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    module = UserModule("my_models.mine")
    assert run(module, {"units": 3}) == ("constants", 6)
    assert module.source == SOURCE
    assert "my_models.mine" in sys.modules


def test_looking_for_a_module_runs_nothing_of_it():
    UserModule("raise SystemExit('run')\ndef build_model(preprocessing, hyperparameters): ...")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def build_model(p, h):\n    return (", r"module <module>, line 2: '\(' was never closed"),
        ("import os\nos.no_such_thing\n", "module <module>, line 2: AttributeError: module 'os' has no attribute"),
        ("import no_such_package\n", "line 1: ModuleNotFoundError: No module named 'no_such_package'"),
        ("x = 1\n", r"module <module> has no function build_model\(preprocessing, hyperparameters\)"),
        ("def build_model(p, h):\n    import json\n    return json.loads('{')\n", "line 3: JSONDecodeError: Expecting"),
        ("def build_model(p, h):\n    raise ValueError('two\\nlines')\n", "line 2: ValueError: two lines$"),
        ("def build_model(p):\n    return p\n", "TypeError: build_model.. takes 1 positional argument"),
    ],
)
def test_errors_in_user_code_are_one_line_with_their_place(source, message):
    with pytest.raises(StepError, match=message) as error:
        run(UserModule(source), {})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("/nowhere/mine.py", "/nowhere/mine.py cannot be read"),
        ("no_such_package.mine", "module no_such_package.mine is not installed in this image"),
        ("what is this", "parameter module is 'what is this'; give source text with build_model"),
    ],
)
def test_modules_that_are_not_there_are_refused(module, message):
    with pytest.raises(StepError, match=message):
        run(UserModule(module), {})


def test_a_package_that_fails_to_import_something_else_says_so(tmp_path, monkeypatch):
    (tmp_path / "lonely.py").write_text("\nimport no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(StepError, match=r"module lonely, line 2: ModuleNotFoundError: .*no_such_dependency"):
        run(UserModule("lonely"), {})


def test_whole_numbers_may_arrive_as_floats():
    chosen = Hyperparameters.parse({"hidden_units": [16.0, 8.0], "embedding_dim": 4.0, "dropout": 0.5})
    assert chosen == Hyperparameters(hidden_units=(16, 8), embedding_dim=4, dropout=0.5)
    assert isinstance(chosen.hidden_units[0], int)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layers": 3}, "'layers' is unknown .* it has hidden_units, embedding_dim, activation, dropout, l2, wide"),
        ({"hidden_units": [16.5]}, "16.5 is not a whole number"),
        ({"hidden_units": 16}, "hyperparameter of the built-in model is wrong"),
        ({"hidden_units": [0]}, r"hidden_units are \[0\]"),
        ({"embedding_dim": 0}, "embedding_dim is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"dropout": "high"}, "hyperparameter of the built-in model is wrong"),
        ({"l2": -1}, "l2 is -1"),
        ({"activation": "sine"}, "activation is 'sine', must be one of relu"),
        ({"wide": "yes"}, "wide is 'yes'"),
    ],
)
def test_hyperparameters_that_make_no_sense_are_refused(values, message):
    with pytest.raises(StepError, match=message):
        Hyperparameters.parse(values)
