"""Whatever file it is handed, the linter has findings or one line that says what is wrong with the file."""

import copy
import functools

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kfp import compiler, dsl, kubernetes

from kfp_hybrid import images, sources
from kfp_hybrid.errors import UserError
from kfp_hybrid.lint import TARGETS, lint
from kfp_hybrid.lint.rules import RULES
from kfp_hybrid.package import Package
from kfp_hybrid.targets.local import LocalTarget

step = functools.partial(dsl.component, base_image=images.DEPLOYMENT, install_kfp_package=False)
JUNK = st.sampled_from([None, 0, 1.5, True, "", "text", "{{$.x}}", "'", [], [None], ["x"], {}, {"x": {}}, {"x": ["y"]}])


@step()
def write(data: dsl.Output[dsl.Dataset], text: str = "a") -> str:
    return text


@step()
def read(data: dsl.Input[dsl.Dataset]):
    pass


@dsl.pipeline(name="inner")
def inner(data: dsl.Input[dsl.Dataset], text: str):
    read(data=data)


@dsl.pipeline(name="everything")
def everything(items: list = ["a"], uri: str = "gs://bucket/data"):
    written = write(text="b").set_memory_limit("8G").set_env_variable("A", "b")
    kubernetes.use_secret_as_env(written, "secret", {"key": "TOKEN"})
    inner(data=written.outputs["data"], text="c")
    with dsl.ParallelFor(items) as item:
        with dsl.If(item == "a"):
            read(data=dsl.importer(artifact_uri=uri, artifact_class=dsl.Dataset).output)
        with dsl.Else():
            write(text=item)


def places(value, place=()):
    """Every place in a JSON value."""
    if place:
        yield place
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        yield from places(item, (*place, key))


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    path = tmp_path_factory.mktemp("package") / "everything.yaml"
    compiler.Compiler().compile(everything, str(path))
    return list(yaml.safe_load_all(path.read_text()))


def linted(tmp_path, documents):
    path = tmp_path / "damaged.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    return lint(Package.load(path))


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_damaged_package_has_findings_or_is_refused_in_one_line(tmp_path, documents, data):
    damaged = copy.deepcopy(documents)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(list(places(damaged))))
        holder = functools.reduce(lambda value, key: value[key], place[:-1], damaged)
        if data.draw(st.booleans()):
            holder[place[-1]] = copy.deepcopy(data.draw(JUNK))
        else:
            del holder[place[-1]]
        if not any(places(damaged)):
            break
    try:
        linted(tmp_path, damaged)
    except UserError as refused:
        assert "\n" not in str(refused)


def test_a_task_without_its_component_is_refused(tmp_path, documents):
    damaged = copy.deepcopy(documents)
    del damaged[0]["components"]["comp-write"]
    with pytest.raises(UserError, match="damaged: task write refers to the component 'comp-write'"):
        linted(tmp_path, damaged)


def test_a_component_without_its_executor_is_refused(tmp_path, documents):
    damaged = copy.deepcopy(documents)
    del damaged[0]["deploymentSpec"]["executors"]["exec-write"]
    with pytest.raises(UserError, match="damaged: component comp-write refers to the executor 'exec-write'"):
        linted(tmp_path, damaged)


def test_a_component_that_contains_itself_is_refused(tmp_path, documents):
    damaged = copy.deepcopy(documents)
    damaged[0]["components"]["comp-inner"]["dag"]["tasks"]["read"]["componentRef"]["name"] = "comp-inner"
    with pytest.raises(UserError, match="damaged: the component comp-inner contains itself"):
        linted(tmp_path, damaged)


def test_linting_does_not_change_the_package(tmp_path, documents):
    path = tmp_path / "package.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    package = Package.load(path)
    before = package.spec.SerializeToString(deterministic=True)
    lint(package)
    assert package.spec.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("name", sources.pipeline_names())
def test_every_pipeline_of_this_collection_is_clean_for_every_target(tmp_path, name):
    sources.compile_pipeline(name, LocalTarget(tmp_path), tmp_path / "package.yaml")
    assert lint(Package.load(tmp_path / "package.yaml"), TARGETS) == []


def test_rules_have_stable_distinct_names_and_say_what_to_do():
    assert len({rule.id for rule in RULES}) == len({rule.name for rule in RULES}) == len(RULES) >= 30
    for rule in RULES:
        assert rule.id.startswith("KH") and rule.id[2:].isdigit() and len(rule.id) == 5
        assert rule.mend and rule.summary.endswith(".")
        assert rule.levels and set(rule.levels) <= set(TARGETS) and set(rule.levels.values()) <= {"error", "warning"}


def test_every_rule_has_a_test_that_breaks_it_and_one_that_does_not(request):
    families = ["package", "values", "control_flow", "artifacts", "containers", "platforms"]
    for rule in RULES:
        text = (request.path.parent / f"test_lint_{families[int(rule.id[2])]}.py").read_text()
        section = text.partition(f"# {rule.id} {rule.name}\n")[2].partition("\n\n\n# KH")[0]
        assert f'"{rule.id}"' in section, f"no test breaks {rule.id}"
        assert "_fine" in section or "set())" in section, f"no test respects {rule.id}"
