"""KH1: values that travel in a package. What a rule says of a local run is tried on kfp.local."""
# ruff: noqa: UP045 - kfp takes Optional[str], not str | None

import functools
from typing import Optional

import pytest
from kfp import dsl

from kfp_hybrid import images

step = functools.partial(dsl.component, base_image=images.DEPLOYMENT, install_kfp_package=False)
KIBIBYTE = 1024


@step()
def note(text: str = "here"):
    import os

    with open(os.environ["NOTES"], "a") as notes:
        notes.write(f"{text}\n")


@step()
def note_variable():
    import os

    with open(os.environ["NOTES"], "a") as notes:
        notes.write(os.environ["GIVEN"] + "\n")


@step()
def join(texts: list):
    import os

    with open(os.environ["NOTES"], "a") as notes:
        notes.write("+".join(texts) + "\n")


@step()
def note_length(text: str, other: str = ""):
    import os

    with open(os.environ["NOTES"], "a") as notes:
        notes.write(f"{len(text) + len(other)}\n")


def note_of(value):
    @dsl.pipeline(name="p")
    def pipeline():
        note(text=value)

    return pipeline


# KH101 placeholder-unsupported


@pytest.mark.parametrize(
    "placeholder",
    [
        dsl.PIPELINE_JOB_RESOURCE_NAME_PLACEHOLDER,
        dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER,
        dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER,
    ],
)
def test_a_placeholder_that_a_local_run_does_not_know_is_an_error(broken, run, placeholder):
    pipeline = note_of(placeholder)
    assert broken(pipeline) == {("KH101", "note", "local", "error")}
    assert "IndexError" in run(pipeline).error


def test_the_pipeline_root_is_an_error_on_kubeflow_only(broken, run):
    pipeline = note_of(dsl.PIPELINE_ROOT_PLACEHOLDER)
    assert broken(pipeline) == {("KH101", "note", "kubeflow", "error")}
    assert "/root" in run(pipeline).notes[0]


def test_a_placeholder_that_only_google_cloud_knows_is_an_error_elsewhere(broken, run):
    pipeline = note_of("{{$.pipeline_google_cloud_project_id}}")
    assert broken(pipeline) == {("KH101", "note", "local", "error"), ("KH101", "note", "kubeflow", "error")}
    assert "IndexError" in run(pipeline).error


@pytest.mark.parametrize(
    "placeholder",
    [
        dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
        dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        dsl.PIPELINE_TASK_NAME_PLACEHOLDER,
        dsl.PIPELINE_TASK_ID_PLACEHOLDER,
    ],
)
def test_the_name_and_the_id_of_job_and_task_are_fine(broken, run, placeholder):
    pipeline = note_of(placeholder)
    assert broken(pipeline) == set()  # neither KH101 nor KH102
    (noted,) = run(pipeline).notes
    assert noted and "{{" not in noted


# KH102 placeholder-embedded


def within_a_text():
    return note_of(f"run-{dsl.PIPELINE_JOB_NAME_PLACEHOLDER}"), "note"


def within_a_list():
    @dsl.pipeline(name="p")
    def pipeline():
        join(texts=[dsl.PIPELINE_JOB_NAME_PLACEHOLDER])

    return pipeline, "join"


def as_the_default_of_a_parameter():
    @dsl.pipeline(name="p")
    def pipeline(text: str = dsl.PIPELINE_JOB_NAME_PLACEHOLDER):
        note(text=text)

    return pipeline, ""


def as_the_default_of_an_input():
    @step()
    def note_name(text: str = dsl.PIPELINE_JOB_NAME_PLACEHOLDER):
        pass

    @dsl.pipeline(name="p")
    def pipeline():
        note_name()

    return pipeline, "note-name"


@pytest.mark.parametrize(
    "broken_pipeline", [within_a_text, within_a_list, as_the_default_of_a_parameter, as_the_default_of_an_input]
)
def test_a_placeholder_that_is_not_the_whole_value_of_an_input_is_an_error_on_kubeflow(broken, broken_pipeline):
    pipeline, task = broken_pipeline()
    assert broken(pipeline) == {("KH102", task, "kubeflow", "error")}


def test_a_placeholder_in_a_variable_is_an_error(broken, run):
    @dsl.pipeline(name="p")
    def pipeline():
        note_variable().set_env_variable("GIVEN", dsl.PIPELINE_JOB_NAME_PLACEHOLDER)

    assert broken(pipeline) == {("KH102", "note-variable", target, "error") for target in ("local", "kubeflow")}
    assert run(pipeline).notes == ["{{$.pipeline_job_name}}"]


def test_a_placeholder_in_an_argument_of_a_container_is_an_error_on_kubeflow(broken):
    @dsl.container_component
    def shout():
        return dsl.ContainerSpec(image="busybox:1.37", command=["echo"], args=[dsl.PIPELINE_JOB_NAME_PLACEHOLDER])

    @dsl.pipeline(name="p")
    def pipeline():
        shout()

    assert ("KH102", "shout", "kubeflow", "error") in broken(pipeline)


def test_outputs_and_parameters_within_a_text_are_fine(broken, run):
    @step()
    def greet(name: str) -> str:
        return f"hello {name}"

    @dsl.pipeline(name="p")
    def pipeline(name: str = "world"):
        note(text=f"{name}: {greet(name=name).output}!")

    assert broken(pipeline) == set()  # neither KH101 nor KH102
    assert run(pipeline).notes == ["world: hello world!"]


def test_inputs_in_the_arguments_of_a_container_are_fine(broken):
    @dsl.container_component
    def shout(text: str, result: dsl.OutputPath(str)):
        return dsl.ContainerSpec(image="busybox:1.37", command=["sh", "-c", f"echo {text} > $0"], args=[result])

    @dsl.pipeline(name="p")
    def pipeline():
        shout(text="a")

    assert {rule for rule, *_ in broken(pipeline)} == {"KH401"}


# KH103 value-size


def everywhere(task):
    return {("KH103", task, target, "error") for target in ("local", "kubeflow", "vertex")}


def test_a_value_of_128_kibibytes_is_an_error(broken, run):
    @dsl.pipeline(name="p")
    def pipeline():
        note_length(text="x" * 128 * KIBIBYTE)

    assert broken(pipeline) == everywhere("note-length")
    assert "Argument list too long" in run(pipeline).error


def test_values_that_have_128_kibibytes_together_are_an_error(broken, run):
    @dsl.pipeline(name="p")
    def pipeline():
        note_length(text="x" * 64 * KIBIBYTE, other="y" * 64 * KIBIBYTE)

    assert broken(pipeline) == everywhere("note-length")
    assert "Argument list too long" in run(pipeline).error


def test_a_default_of_128_kibibytes_is_an_error(broken):
    @dsl.pipeline(name="p")
    def pipeline(text: str = "x" * 128 * KIBIBYTE):
        note_length(text=text)

    assert broken(pipeline) == everywhere("")


def test_an_argument_of_128_kibibytes_is_an_error(broken):
    @dsl.container_component
    def shout():
        return dsl.ContainerSpec(image="busybox:1.37", command=["echo", "x" * 128 * KIBIBYTE])

    @dsl.pipeline(name="p")
    def pipeline():
        shout()

    assert everywhere("shout") <= broken(pipeline)


def test_the_items_of_a_loop_of_128_kibibytes_are_an_error_on_kubeflow(broken):
    @dsl.pipeline(name="p")
    def pipeline():
        with dsl.ParallelFor(["x" * KIBIBYTE] * 128) as text:
            note_length(text=text)

    assert broken(pipeline) == {("KH103", "for-loop-2", "kubeflow", "error")}


def test_a_value_of_100_kibibytes_is_fine(broken, run):
    @dsl.pipeline(name="p")
    def pipeline():
        note_length(text="x" * 100 * KIBIBYTE)

    assert broken(pipeline) == set()  # so KH103 is not among them
    assert run(pipeline).notes == [str(100 * KIBIBYTE)]


# KH104 optional-parameter


def of_the_pipeline():
    @dsl.pipeline(name="p")
    def pipeline(text: Optional[str] = None):
        note()

    return pipeline, ""


def of_a_nested_pipeline():
    @dsl.pipeline(name="inner")
    def inner(text: str, other: Optional[str] = None):
        note(text=text)

    @dsl.pipeline(name="p")
    def pipeline():
        inner(text="here")

    return pipeline, "inner"


@pytest.mark.parametrize("broken_pipeline", [of_the_pipeline, of_a_nested_pipeline])
def test_an_optional_parameter_that_is_left_out_is_an_error(broken, run, broken_pipeline):
    pipeline, task = broken_pipeline()
    assert broken(pipeline) == {("KH104", task, "local", "error")}
    assert "Unknown value type" in run(pipeline).error


def test_optional_parameters_with_a_default_or_a_value_and_those_of_components_are_fine(broken, run):
    @step()
    def note_or_none(text: Optional[str] = None):
        import os

        with open(os.environ["NOTES"], "a") as notes:
            notes.write(f"{text}\n")

    @dsl.pipeline(name="inner")
    def inner(text: Optional[str] = None):
        note_or_none(text=text)

    @dsl.pipeline(name="p")
    def pipeline(text: Optional[str] = "default"):
        inner(text=text)
        note_or_none()

    assert broken(pipeline) == set()  # so KH104 is not among them
    assert sorted(run(pipeline).notes) == ["None", "default"]
