"""Every component of the collection declares itself in full, and its README says what its package says."""

import ast
import datetime
import shutil
from pathlib import Path

import pydantic
import pytest
import yaml
from kfp import compiler

from kfp_hybrid import catalog

FOLDERS = catalog.folders()
ALLOWED_IMPORTS = {("kfp", "dsl"), ("kfp_hybrid", "images")}
each_component = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def function_of(folder):
    tree = ast.parse((folder / "component.py").read_text())
    return tree, [node for node in tree.body if isinstance(node, ast.FunctionDef)]


# The components of the collection


def test_the_collection_has_its_components():
    names = {folder.name for folder in FOLDERS}
    assert {"push_model", "report_rejection"} <= names
    assert len(names) == len(FOLDERS), "two categories have a component of the same name"


@each_component
def test_a_component_folder_has_its_files(folder):
    assert [name for name in ("__init__.py", "component.py", "metadata.yaml") if not (folder / name).exists()] == []
    assert (folder / "README.md").exists(), "run: python -m kfp_hybrid.catalog --write"
    assert (folder.parent / "__init__.py").exists()


@each_component
def test_the_interface_imports_only_kfp_the_image_table_and_types(folder):
    tree, _ = function_of(folder)
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module != "typing":
            assert {(node.module, alias.name) for alias in node.names} <= ALLOWED_IMPORTS, ast.unparse(node)
        assert not isinstance(node, ast.Import), ast.unparse(node)


@each_component
def test_the_interface_is_one_function_named_like_its_folder_and_nothing_else(folder):
    tree, functions = function_of(folder)
    assert [function.name for function in functions] == [folder.name]
    rest = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ImportFrom)]
    assert len(rest) == 1, "only a module docstring may stand beside the imports and the function"
    assert ast.get_docstring(tree)


@each_component
def test_the_interface_installs_nothing_when_it_runs(folder):
    _, (function,) = function_of(folder)
    (decorator,) = function.decorator_list
    options = {keyword.arg: ast.unparse(keyword.value) for keyword in decorator.keywords}
    assert ast.unparse(decorator.func) == "dsl.component"
    assert options["install_kfp_package"] == "False"
    assert options["base_image"].startswith("images.")
    assert "packages_to_install" not in options


@each_component
def test_the_declarations_are_complete_and_agree_with_the_package(folder):
    assert catalog.problems(catalog.load(folder)) == []


@each_component
def test_the_compiled_package_is_one_document_without_pip(folder, tmp_path):
    component = getattr(__import__(catalog.module_of(folder), fromlist=[folder.name]), folder.name)
    compiler.Compiler().compile(component, str(tmp_path / "package.yaml"))
    text = (tmp_path / "package.yaml").read_text()
    (package,) = yaml.safe_load_all(text)
    assert "pip install" not in text
    (executor,) = package["deploymentSpec"]["executors"].values()
    assert executor["container"]["image"] in catalog.IMAGES.values()


@each_component
def test_the_readme_is_up_to_date(folder):
    text = catalog.readme(catalog.load(folder))
    assert (folder / "README.md").read_text(encoding="utf-8") == text, "run: python -m kfp_hybrid.catalog --write"


def test_the_index_is_up_to_date():
    index = catalog.index([catalog.load(folder) for folder in FOLDERS])
    assert (catalog.ROOT / "README.md").read_text(encoding="utf-8") == index


# The tooling


COMPONENT = '''
"""The interface of {name}."""

from typing import Dict, List, NamedTuple, Optional

from kfp import dsl

from kfp_hybrid import images


@dsl.component(base_image=images.{image}, {install})
def {function}(
    examples: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    label: str,
    baseline: Optional[dsl.Input[dsl.Model]] = None,
    epochs: int = 3,
    rates: List[float] = [0.5, 1.0],
    weights: Dict[str, float] = {{}},
    note: str = "a | b",
) -> NamedTuple("Outputs", [("blessed", bool), ("auc", float)]):
    """Train a model.

    More about it.

    Args:
        examples: Rows to
            learn from.
        label: The column.
        baseline: What to beat.
        epochs: How often.
        rates: Rates.
        weights: Weights.
        note: A note.{outputs}
    """
    return (True, 0.5)
'''
RETURNS = "\n\n    Returns:\n        model: The model.\n        blessed: Good?\n        auc: Area."
SOURCE = {"image": "TENSORFLOW", "install": "install_kfp_package=False", "outputs": RETURNS}
METADATA = {
    "name": "train_it",
    "stability": "alpha",
    "image": "tensorflow",
    "summary": "Trains.",
    "tags": ["training"],
    "dependencies": {"kubeflow": [{"name": "Pipelines", "version": ">=2.17"}]},
    "lastVerified": datetime.date(2026, 11, 21),
}


@pytest.fixture
def make_component(tmp_path, monkeypatch):
    """Writes a component below a root of its own, and makes it importable where the collection is."""
    root = tmp_path / "components"
    monkeypatch.setattr(catalog.components, "__path__", [*catalog.components.__path__, str(root)])

    def make(category, name="train_it", metadata=None, **changes):
        folder = root / category / name
        folder.mkdir(parents=True)
        (folder / "component.py").write_text(COMPONENT.format(**{**SOURCE, "name": name, "function": name, **changes}))
        (folder / "metadata.yaml").write_text(yaml.safe_dump({**METADATA, "name": name, **(metadata or {})}))
        return folder

    return make


def test_inputs_and_outputs_are_listed_in_the_order_of_the_signature(make_component):
    component = catalog.load(make_component("order"))
    assert [(port.name, port.type, port.required, port.default) for port in component.inputs] == [
        ("examples", "system.Dataset", True, ""),
        ("label", "str", True, ""),
        ("baseline", "system.Model", False, ""),
        ("epochs", "int", False, "3"),
        ("rates", "list", False, "[0.5, 1.0]"),
        ("weights", "dict", False, "{}"),
        ("note", "str", False, "'a | b'"),
    ]
    assert [(port.name, port.type, port.description) for port in component.outputs] == [
        ("model", "system.Model", "The model."),
        ("blessed", "bool", "Good?"),
        ("auc", "float", "Area."),
    ]
    assert catalog.problems(component) == []


def test_the_readme_shows_the_interface(make_component):
    folder = make_component("shown")
    (folder / "docs.md").write_text("## Background\n\nProse.\n")
    text = catalog.readme(catalog.load(folder))
    assert "| `examples` | system.Dataset | **required** | Rows to learn from. |\n" in text
    assert "| `baseline` | system.Model | none | What to beat. |\n" in text
    assert "| `note` | str | `'a \\| b'` | A note. |\n" in text
    assert "| `model` | system.Model | The model. |\n" in text
    assert text.startswith("# train_it\n")
    assert text.endswith("## Background\n\nProse.\n")


def test_the_usage_of_the_readme_gives_what_is_required_and_is_python(make_component):
    text = catalog.readme(catalog.load(make_component("usage")))
    code = text.partition("```python\n")[2].partition("```")[0]
    (pipeline,) = [node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)]
    (call,) = [node for node in ast.walk(pipeline) if isinstance(node, ast.Call)]
    assert [keyword.arg for keyword in call.keywords] == ["examples", "label"]
    assert "from kfp_hybrid.components.usage.train_it.component import train_it" in code


@pytest.mark.parametrize(
    ("category", "options", "problem"),
    [
        ("bad_image", {"image": "VALIDATION"}, "metadata.yaml: the image is tensorflow, but the package runs ghcr.io"),
        ("bad_pip", {"install": "packages_to_install=['numpy']"}, "component.py: installs with pip when it runs"),
        ("bad_kfp", {"install": "install_kfp_package=True"}, "component.py: installs with pip when it runs"),
        ("bad_outputs", {"outputs": ""}, "component.py: describe the output model under Returns:"),
    ],
)
def test_a_wrong_declaration_is_named_with_its_file(make_component, category, options, problem):
    found = catalog.problems(catalog.load(make_component(category, **options)))
    assert any(problem in line for line in found), found


def test_a_name_that_is_not_the_folders_is_named(make_component):
    folder = make_component("bad_name", metadata={"name": "other"})
    assert "the name is other; it must be train_it" in "".join(catalog.problems(catalog.load(folder)))


def test_a_function_that_is_not_named_like_its_folder_is_an_error(make_component):
    with pytest.raises(catalog.CatalogError, match="define a component named train_it, like its folder"):
        catalog.load(make_component("bad_function", function="train_that"))


@pytest.mark.parametrize(
    ("category", "change", "problem"),
    [
        ("m1", {"owner": "me"}, "owner: Extra inputs are not permitted"),
        ("m2", {"stability": "good"}, "stability: Input should be 'alpha', 'beta' or 'stable'"),
        ("m3", {"tags": "training"}, "tags: Input should be a valid list"),
        ("m4", {"dependencies": {"kubeflow": []}}, "dependencies.kubeflow: List should have at least 1 item"),
        ("m5", {"lastVerified": "recently"}, "lastVerified: Input should be a valid date"),
        ("m6", {"image": "python:3.11"}, "image: Input should be 'validation', 'tensorflow', 'deployment' or 'serv"),
    ],
)
def test_wrong_metadata_is_an_error_that_names_the_field(make_component, category, change, problem):
    with pytest.raises(catalog.CatalogError) as caught:
        catalog.load(make_component(category, metadata=change))
    assert problem in str(caught.value)
    assert "metadata.yaml" in str(caught.value)


def test_metadata_that_is_missing_or_not_yaml_is_an_error(make_component):
    folder = make_component("m7")
    (folder / "metadata.yaml").write_text("name: [")
    with pytest.raises(catalog.CatalogError, match=r"metadata\.yaml: not YAML"):
        catalog.load(folder)
    (folder / "metadata.yaml").write_text("")
    with pytest.raises(catalog.CatalogError, match=r"metadata\.yaml: it: Input should be a valid dictionary"):
        catalog.load(folder)
    (folder / "metadata.yaml").unlink()
    with pytest.raises(catalog.CatalogError, match=r"metadata\.yaml is missing"):
        catalog.load(folder)


def test_metadata_cannot_be_changed_by_accident():
    with pytest.raises(pydantic.ValidationError):
        catalog.Metadata.model_validate(METADATA).name = "other"


def test_write_then_check_then_change_then_check(make_component, tmp_path, capsys):
    first, second = make_component("cli"), make_component("cli", name="train_that")
    root = tmp_path / "components"
    assert catalog.main(["--check"], root) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"out of date: {path}" for path in (root / "README.md", first / "README.md", second / "README.md")
    ]
    assert catalog.main(["--write"], root) == 0
    assert catalog.main(["--check"], root) == 0
    assert "[train_that](cli/train_that/README.md)" in (root / "README.md").read_text()
    capsys.readouterr()

    (second / "docs.md").write_text("More.")
    assert catalog.main(["--check"], root) == 1
    assert capsys.readouterr().out.splitlines() == [f"out of date: {second}/README.md"]
    assert not (second / "README.md").read_text().endswith("More.\n")
    shutil.rmtree(second)
    assert catalog.main(["--write"], root) == 0
    assert capsys.readouterr().out.splitlines() == [f"wrote {root}/README.md"]


def test_one_broken_component_does_not_keep_the_others_from_being_written(make_component, tmp_path, capsys):
    good, bad = make_component("one"), make_component("two", metadata={"stability": "good"})
    assert catalog.main(["--write"], tmp_path / "components") == 1
    assert (good / "README.md").exists()
    assert not (bad / "README.md").exists()
    assert f"{bad}/metadata.yaml: stability" in capsys.readouterr().err


def test_every_image_of_the_table_is_a_lock_file():
    locks = {path.parent.name for path in Path(catalog.ROOT, "images").glob("*/requirements.txt")}
    assert locks == set(catalog.IMAGES)
