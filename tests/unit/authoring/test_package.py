"""Compiled packages: the parameters they take and the steps they have."""

import pytest
from kfp import compiler, dsl

from kfp_hybrid import images
from kfp_hybrid.errors import UserError
from kfp_hybrid.package import Package


@dsl.component(base_image=images.DEPLOYMENT, install_kfp_package=False)
def work(number: int = 0) -> int:
    return number


@dsl.container_component
def container():
    return dsl.ContainerSpec(image="busybox", command=["true"])


@dsl.pipeline(name="sample")
def sample(count: int, rate: float = 0.5, strict: bool = False, names: list = ["a"], limits: dict = {}, word: str = ""):
    first = work(number=count)
    with dsl.If(first.output == 1):
        work(number=first.output)
    with dsl.Else():
        container()


@pytest.fixture
def package(tmp_path):
    compiler.Compiler().compile(sample, str(tmp_path / "sample.yaml"))
    return Package.load(tmp_path / "sample.yaml")


def test_steps_are_listed_in_the_order_in_which_they_run_through_branches(package):
    assert [(step.task, step.image, step.is_python_component) for step in package.steps()] == [
        ("work", images.DEPLOYMENT, True),
        ("work-2", images.DEPLOYMENT, True),
        ("container", "busybox", False),
    ]


def test_a_parameter_is_described_with_its_type_and_default(package):
    assert package.describe_parameter("count").endswith("[whole number; required]")
    assert package.describe_parameter("names").endswith('[JSON list; default: ["a"]]')


def test_parameters_are_in_the_same_order_in_every_process(package):
    # A protobuf map has another order in each process, and pages written from it would never be the same.
    assert list(package.parameters) == ["count", "limits", "names", "rate", "strict", "word"]


def test_text_becomes_the_type_that_the_package_declares(package):
    given = {"count": "3", "rate": "1e-3", "strict": "TRUE", "names": '["x", "y"]', "limits": '{"a": 1}', "word": "3"}
    assert package.arguments(given) == {
        "count": 3, "rate": 0.001, "strict": True, "names": ["x", "y"], "limits": {"a": 1}, "word": "3",
    }  # fmt: skip


def test_values_from_a_file_keep_their_type(package):
    given = {"count": 3, "rate": 1, "strict": True, "names": [], "limits": {}, "word": "x"}
    assert package.arguments(given) == given


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "needs a value for: count"),
        ({"count": "1", "namse": "[]"}, "has no parameter namse; did you mean names?"),
        ({"count": "1", "zzz": "1"}, "it has: count, limits"),
        ({"count": "1.5"}, "parameter count takes a whole number such as 3, not '1.5'"),
        ({"count": True}, "parameter count takes"),
        ({"count": "1", "rate": "fast"}, "parameter rate takes"),
        ({"count": "1", "strict": "yes"}, "parameter strict takes"),
        ({"count": "1", "strict": 1}, "parameter strict takes"),
        ({"count": "1", "names": "a,b"}, "parameter names takes"),
        ({"count": "1", "names": '{"a": 1}'}, "parameter names takes"),
        ({"count": "1", "limits": "[1]"}, "parameter limits takes"),
        ({"count": "1", "word": 5}, "parameter word takes"),
    ],
)
def test_a_wrong_parameter_is_refused_in_one_line(package, given, message):
    with pytest.raises(UserError) as refused:
        package.arguments(given)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "[]", "a: [", "deploymentSpec: 5", "\x00", "just words"])
def test_a_file_that_is_no_package_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match="is not a compiled KFP v2 pipeline") as refused:
        Package.load(tmp_path / "x.yaml")
    assert "\n" not in str(refused.value)


def test_a_missing_package_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no package"):
        Package.load(tmp_path / "absent.yaml")


def test_a_folder_is_no_package(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*: Is a directory"):
        Package.load(tmp_path)


def test_platform_settings_in_a_second_document_are_passed_over(package, tmp_path):
    (tmp_path / "two.yaml").write_text(package.text + "\n---\nplatforms:\n  kubernetes: {}\n")
    assert Package.load(tmp_path / "two.yaml").name == "sample"
