"""KH2: branches, loops and nested pipelines. What a rule says of a local run is tried on kfp.local."""

import functools
from typing import NamedTuple

import pytest
from kfp import dsl

from kfp_hybrid import images

step = functools.partial(dsl.component, base_image=images.DEPLOYMENT, install_kfp_package=False)


@step()
def note(text: str = "here") -> str:
    import os

    with open(os.environ["NOTES"], "a") as notes:
        notes.write(f"{text}\n")
    return text


@step()
def count() -> int:
    return 3


@step()
def named() -> NamedTuple("Outputs", [("count", int), ("words", list)]):
    return 3, ["a", "b"]


@step()
def words() -> list:
    return ["a", "b"]


@step()
def nothing() -> list:
    return []


@step()
def write(data: dsl.Output[dsl.Dataset], text: str = "here"):
    with open(data.path, "w") as file:
        file.write(text)


@step()
def read(data: dsl.Input[dsl.Dataset]):
    import os

    with open(os.environ["NOTES"], "a") as notes, open(data.path) as file:
        notes.write(f"{file.read()}\n")


@step()
def join(texts: list[str]):
    import os

    with open(os.environ["NOTES"], "a") as notes:
        notes.write("+".join(texts) + "\n")


@step()
def read_all(parts: dsl.Input[list[dsl.Dataset]]):
    import os

    with open(os.environ["NOTES"], "a") as notes:
        notes.write("+".join(open(part.path).read() for part in parts) + "\n")


# KH201 condition-value


def if_on_a_named_output():
    @dsl.pipeline(name="p")
    def pipeline():
        with dsl.If(named().outputs["count"] == 3):
            note()

    return pipeline, "condition-1"


def if_on_a_named_output_of_a_nested_pipeline():
    class Outputs(NamedTuple):
        count: int
        words: list

    @dsl.pipeline(name="inner")
    def inner() -> Outputs:
        task = named()
        return Outputs(task.outputs["count"], task.outputs["words"])

    @dsl.pipeline(name="p")
    def pipeline():
        with dsl.If(inner().outputs["count"] == 3):
            note()

    return pipeline, "condition-1"


def if_within_an_if_on_a_named_output():
    @dsl.pipeline(name="p")
    def pipeline(on: bool = True):
        with dsl.If(on == True), dsl.If(named().outputs["count"] == 3):
            note()

    return pipeline, "condition-1/condition-2"


def if_on_one_of():
    @dsl.pipeline(name="p")
    def pipeline(on: bool = True):
        with dsl.If(on == True):
            one = count()
        with dsl.Else():
            other = count()
        with dsl.If(dsl.OneOf(one.output, other.output) == 3):
            note()

    return pipeline, "condition-4"


def if_on_the_item_of_a_loop_over_an_output():
    @dsl.pipeline(name="p")
    def pipeline():
        with dsl.ParallelFor(words().output) as word, dsl.If(word == "a"):
            note(text=word)

    return pipeline, "for-loop-1/condition-2"


@pytest.mark.parametrize(
    "broken_pipeline",
    [
        if_on_a_named_output,
        if_on_a_named_output_of_a_nested_pipeline,
        if_within_an_if_on_a_named_output,
        if_on_one_of,
        if_on_the_item_of_a_loop_over_an_output,
    ],
)
def test_a_condition_that_a_local_run_skips_in_silence_is_an_error(broken, run, broken_pipeline):
    pipeline, task = broken_pipeline()
    assert broken(pipeline) == {("KH201", task, "local", "error")}
    outcome = run(pipeline)
    assert (outcome.error, outcome.notes) == ("", [])


def if_else_on_a_named_output():
    @dsl.pipeline(name="p")
    def pipeline():
        with dsl.If(named().outputs["count"] == 3):
            note()
        with dsl.Else():
            note(text="else")

    return pipeline


def if_on_the_only_output():
    @dsl.pipeline(name="p")
    def pipeline():
        with dsl.If(count().output == 3):
            note()

    return pipeline


def if_on_a_parameter():
    @dsl.pipeline(name="p")
    def pipeline(on: bool = True):
        with dsl.If(on == True):
            note()

    return pipeline


def if_on_a_named_output_from_outside_of_an_if():
    @dsl.pipeline(name="p")
    def pipeline(on: bool = True):
        task = named()
        with dsl.If(on == True), dsl.If(task.outputs["count"] == 3):
            note()

    return pipeline


def if_on_a_parameter_of_a_nested_pipeline():
    @dsl.pipeline(name="inner")
    def inner(size: int):
        with dsl.If(size == 3):
            note()

    @dsl.pipeline(name="p")
    def pipeline():
        inner(size=named().outputs["count"])

    return pipeline


def if_on_the_item_of_a_loop_over_a_constant():
    @dsl.pipeline(name="p")
    def pipeline():
        with dsl.ParallelFor(["here", "there"]) as word, dsl.If(word == "here"):
            note(text=word)

    return pipeline


@pytest.mark.parametrize(
    "clean_pipeline",
    [
        if_else_on_a_named_output,
        if_on_the_only_output,
        if_on_a_parameter,
        if_on_a_named_output_from_outside_of_an_if,
        if_on_a_parameter_of_a_nested_pipeline,
        if_on_the_item_of_a_loop_over_a_constant,
    ],
)
def test_a_condition_that_a_local_run_judges_is_fine(broken, run, clean_pipeline):
    pipeline = clean_pipeline()
    assert broken(pipeline) == set()  # so KH201 is not among them
    outcome = run(pipeline)
    assert (outcome.error, outcome.notes) == ("", ["here"])


# KH202 loop-items


def loop_over_a_named_output():
    @dsl.pipeline(name="p")
    def pipeline():
        with dsl.ParallelFor(named().outputs["words"]) as word:
            note(text=word)

    return pipeline, "for-loop-1"


def loop_over_a_field_of_an_item():
    @dsl.pipeline(name="p")
    def pipeline():
        with dsl.ParallelFor([{"words": ["a", "b"]}]) as item, dsl.ParallelFor(item.words) as word:
            note(text=word)

    return pipeline, "for-loop-2/for-loop-3"


def loop_over_one_of():
    @dsl.pipeline(name="p")
    def pipeline(on: bool = True):
        with dsl.If(on == True):
            one = words()
        with dsl.Else():
            other = words()
        with dsl.ParallelFor(dsl.OneOf(one.output, other.output)) as word:
            note(text=word)

    return pipeline, "for-loop-4"


@pytest.mark.parametrize("broken_pipeline", [loop_over_a_named_output, loop_over_a_field_of_an_item, loop_over_one_of])
def test_a_loop_whose_list_a_local_run_does_not_find_is_an_error(broken, run, broken_pipeline):
    pipeline, task = broken_pipeline()
    assert broken(pipeline) == {("KH202", task, "local", "error")}
    outcome = run(pipeline)
    assert "not found" in outcome.error
    assert outcome.notes == []


def loop_over_the_only_output():
    @dsl.pipeline(name="p")
    def pipeline():
        with dsl.ParallelFor(words().output) as word:
            note(text=word)

    return pipeline


def loop_over_a_parameter():
    @dsl.pipeline(name="p")
    def pipeline(items: list[str] = ["a", "b"]):
        with dsl.ParallelFor(items) as word:
            note(text=word)

    return pipeline


def loop_over_a_constant():
    @dsl.pipeline(name="p")
    def pipeline():
        with dsl.ParallelFor(["a", "b"]) as word:
            note(text=word)

    return pipeline


def loop_over_a_named_output_in_a_nested_pipeline():
    @dsl.pipeline(name="inner")
    def inner(items: list):
        with dsl.ParallelFor(items) as word:
            note(text=word)

    @dsl.pipeline(name="p")
    def pipeline():
        inner(items=named().outputs["words"])

    return pipeline


@pytest.mark.parametrize(
    "clean_pipeline",
    [
        loop_over_the_only_output,
        loop_over_a_parameter,
        loop_over_a_constant,
        loop_over_a_named_output_in_a_nested_pipeline,
    ],
)
def test_a_loop_whose_list_a_local_run_finds_is_fine(broken, run, clean_pipeline):
    pipeline = clean_pipeline()
    assert broken(pipeline) == set()  # so KH202 is not among them
    outcome = run(pipeline)
    assert (outcome.error, sorted(outcome.notes)) == ("", ["a", "b"])


# KH203 loop-over-artifacts


def test_a_loop_over_artifacts_is_an_error_and_a_local_run_leaves_it_out(broken, run):
    @dsl.pipeline(name="inner")
    def inner(parts: dsl.Input[list[dsl.Dataset]], text: str):
        with dsl.ParallelFor(parts) as part:
            read(data=part)

    @dsl.pipeline(name="p")
    def pipeline():
        with dsl.ParallelFor(["a", "b"]) as text:
            written = write(text=text)
        inner(parts=dsl.Collected(written.outputs["data"]), text="x")

    where = "inner/for-loop-1"
    assert broken(pipeline) == {("KH203", where, "local", "error"), ("KH203", where, "kubeflow", "error")}
    outcome = run(pipeline)
    assert (outcome.error, outcome.notes) == ("", [])


def test_a_step_that_takes_the_list_of_artifacts_is_fine(broken, run):
    @dsl.pipeline(name="p")
    def pipeline():
        with dsl.ParallelFor(["a", "b"]) as text:
            written = write(text=text)
        read_all(parts=dsl.Collected(written.outputs["data"]))

    assert broken(pipeline) == set()  # neither KH203 nor KH204
    outcome = run(pipeline)
    assert (outcome.error, outcome.notes) == ("", ["a+b"])


# KH204 collected-outputs


def collect_from_an_empty_parameter():
    @dsl.pipeline(name="p")
    def pipeline(items: list[str] = []):
        with dsl.ParallelFor(items) as word:
            noted = note(text=word)
        join(texts=dsl.Collected(noted.output))

    return pipeline


def collect_from_an_empty_output():
    @dsl.pipeline(name="p")
    def pipeline():
        with dsl.ParallelFor(nothing().output) as word:
            noted = note(text=word)
        join(texts=dsl.Collected(noted.output))

    return pipeline


def collect_what_an_item_skips():
    @dsl.pipeline(name="p")
    def pipeline():
        with dsl.ParallelFor(["a", "b"]) as word, dsl.If(word == "a"):
            noted = note(text=word)
        join(texts=dsl.Collected(noted.output))

    return pipeline


@pytest.mark.parametrize(
    ("broken_pipeline", "loop"),
    [
        (collect_from_an_empty_parameter, "for-loop-1"),
        (collect_from_an_empty_output, "for-loop-1"),
        (collect_what_an_item_skips, "for-loop-2"),
    ],
)
def test_collected_outputs_that_may_not_be_there_are_a_warning(broken, run, broken_pipeline, loop):
    pipeline = broken_pipeline()
    assert broken(pipeline) == {("KH204", loop, "local", "warning")}
    outcome = run(pipeline)
    assert outcome.error
    assert not any("+" in line for line in outcome.notes)


def test_collected_outputs_of_a_constant_are_fine(broken, run):
    @dsl.pipeline(name="p")
    def pipeline():
        with dsl.ParallelFor(["a", "b"]) as word:
            noted = note(text=word)
        join(texts=dsl.Collected(noted.output))

    assert broken(pipeline) == set()  # so KH204 is not among them
    outcome = run(pipeline)
    assert outcome.error == ""
    assert outcome.notes[-1] == "a+b"


def test_an_empty_loop_of_which_nothing_is_collected_is_fine(broken, run):
    @dsl.pipeline(name="p")
    def pipeline(items: list[str] = []):
        with dsl.ParallelFor(items) as word:
            note(text=word)

    assert broken(pipeline) == set()  # so KH204 is not among them
    assert run(pipeline).error == ""


# KH205 collected-limit


@pytest.mark.parametrize(("items", "expected"), [(101, {("KH205", "for-loop-2", "vertex", "error")}), (100, set())])
def test_more_than_100_collected_artifacts_are_an_error(broken, items, expected):
    @dsl.pipeline(name="p")
    def pipeline():
        with dsl.ParallelFor([str(number) for number in range(items)]) as text:
            written = write(text=text)
        read_all(parts=dsl.Collected(written.outputs["data"]))

    assert broken(pipeline) == expected


def test_more_than_100_collected_parameters_are_fine(broken):
    @dsl.pipeline(name="p")
    def pipeline():
        with dsl.ParallelFor([str(number) for number in range(101)]) as text:
            noted = note(text=text)
        join(texts=dsl.Collected(noted.output))

    assert broken(pipeline) == set()  # so KH205 is not among them


# KH206 oneof-artifact


def test_one_of_two_artifacts_is_an_error(broken, run):
    @dsl.pipeline(name="p")
    def pipeline(on: bool = True):
        with dsl.If(on == True):
            one = write()
        with dsl.Else():
            other = write()
        read(data=dsl.OneOf(one.outputs["data"], other.outputs["data"]))

    where = "condition-branches-1"
    assert broken(pipeline) == {("KH206", where, "local", "error"), ("KH206", where, "kubeflow", "warning")}
    assert "Expected 1 artifact" in run(pipeline).error


def test_one_of_two_parameters_is_fine(broken, run):
    @dsl.pipeline(name="p")
    def pipeline(on: bool = True):
        with dsl.If(on == True):
            one = note(text="one")
        with dsl.Else():
            other = note(text="other")
        note(text=dsl.OneOf(one.output, other.output))

    assert broken(pipeline) == set()  # so KH206 is not among them
    assert run(pipeline).notes == ["one", "one"]


# KH207 nested-artifact-inputs


def nested_pipeline_that_takes_an_artifact():
    @dsl.pipeline(name="inner")
    def inner(data: dsl.Input[dsl.Dataset], text: str = "default"):
        read(data=data)

    return inner


def call_with_an_artifact_only():
    inner = nested_pipeline_that_takes_an_artifact()

    @dsl.pipeline(name="p")
    def pipeline():
        inner(data=write().outputs["data"])

    return pipeline, "inner"


def exit_handler_around_an_artifact():
    @dsl.pipeline(name="p")
    def pipeline():
        written = write()
        with dsl.ExitHandler(note(text="end")):
            read(data=written.outputs["data"])

    return pipeline, "exit-handler-1"


@pytest.mark.parametrize("broken_pipeline", [call_with_an_artifact_only, exit_handler_around_an_artifact])
def test_a_nested_pipeline_that_is_given_artifacts_only_is_an_error(broken, run, broken_pipeline):
    pipeline, task = broken_pipeline()
    assert broken(pipeline) == {("KH207", task, "local", "error")}
    outcome = run(pipeline)
    assert "not found" in outcome.error
    assert "here" not in outcome.notes


def call_with_a_parameter_too():
    inner = nested_pipeline_that_takes_an_artifact()

    @dsl.pipeline(name="p")
    def pipeline():
        inner(data=write().outputs["data"], text="given")

    return pipeline


def branch_around_an_artifact():
    @dsl.pipeline(name="p")
    def pipeline(on: bool = True):
        written = write()
        with dsl.If(on == True):
            read(data=written.outputs["data"])

    return pipeline


def call_within_a_call_by_the_same_name():
    inner = nested_pipeline_that_takes_an_artifact()

    @dsl.pipeline(name="outer")
    def outer(data: dsl.Input[dsl.Dataset], text: str):
        inner(data=data)

    @dsl.pipeline(name="p")
    def pipeline():
        outer(data=write().outputs["data"], text="given")

    return pipeline


@pytest.mark.parametrize(
    "clean_pipeline", [call_with_a_parameter_too, branch_around_an_artifact, call_within_a_call_by_the_same_name]
)
def test_a_nested_pipeline_whose_artifacts_arrive_is_fine(broken, run, clean_pipeline):
    pipeline = clean_pipeline()
    assert broken(pipeline) == set()  # so KH207 is not among them
    outcome = run(pipeline)
    assert (outcome.error, outcome.notes) == ("", ["here"])


# KH208 undeclared-dependency


def test_a_loop_that_forgets_its_producer_is_an_error(broken, package):
    @dsl.pipeline(name="p")
    def pipeline():
        with dsl.ParallelFor(words().output):
            note()

    compiled = package(pipeline)
    assert list(compiled.spec.root.dag.tasks["for-loop-1"].dependent_tasks) == []  # which of the two starts is chance
    assert broken(compiled) == {("KH208", "for-loop-1", target, "error") for target in ("local", "kubeflow")}


def test_a_loop_with_a_step_after_its_producer_is_fine(broken, run):
    @dsl.pipeline(name="p")
    def pipeline():
        produced = words()
        with dsl.ParallelFor(produced.output):
            note().after(produced)

    assert broken(pipeline) == set()  # so KH208 is not among them
    assert run(pipeline).notes == ["here", "here"]


# KH209 untyped-loop-item


def test_a_condition_on_numbers_that_count_as_text_is_an_error(broken, run):
    @dsl.pipeline(name="p")
    def pipeline(items: list = [1, 2]):
        with dsl.ParallelFor(items) as item, dsl.If(item == 2):
            note()

    assert broken(pipeline) == {("KH209", "for-loop-1", "local", "error")}
    outcome = run(pipeline)
    assert (outcome.error, outcome.notes) == ("", [])


@pytest.mark.parametrize(("kind", "default", "wanted"), [(list[int], [1, 2], 2), (list, ["1", "2"], "2")])
def test_a_condition_on_items_of_a_known_type_is_fine(broken, run, kind, default, wanted):
    @dsl.pipeline(name="p")
    def pipeline(items: kind = default):
        with dsl.ParallelFor(items) as item, dsl.If(item == wanted):
            note()

    assert broken(pipeline) == set()  # so KH209 is not among them
    assert run(pipeline).notes == ["here"]


# KH210 condition-quote


@pytest.mark.parametrize("text", ["it's", "a'b'c"])
def test_a_condition_on_a_text_with_a_quote_is_an_error(broken, run, text):
    @dsl.pipeline(name="p")
    def pipeline(word: str = text):
        with dsl.If(word == text):
            note()

    assert broken(pipeline) == {("KH210", "condition-1", target, "error") for target in ("local", "kubeflow", "vertex")}
    assert run(pipeline).notes == []


@pytest.mark.parametrize("text", ["its", "", 'a "b" c', "a)b", "x == y"])
def test_a_condition_on_a_text_without_a_quote_is_fine(broken, run, text):
    @dsl.pipeline(name="p")
    def pipeline(word: str = text, other: str = "o"):
        with dsl.If(word == text):
            note()
        with dsl.Elif(other == "p"):
            note(text="elif")

    assert broken(pipeline) == set()  # so KH210 is not among them
    assert run(pipeline).notes == ["here"]


# KH211 empty-branch


def test_an_empty_branch_is_an_error(broken, run):
    @dsl.pipeline(name="p")
    def pipeline(on: bool = False):
        with dsl.If(on == True):
            note()
        with dsl.Else():
            pass

    where = "condition-branches-1/condition-3"
    assert broken(pipeline) == {("KH211", where, target, "error") for target in ("local", "kubeflow")}
    assert "unknown component implementation" in run(pipeline).error


def test_a_branch_with_a_step_is_fine(broken, run):
    @dsl.pipeline(name="p")
    def pipeline(on: bool = False):
        with dsl.If(on == True):
            note()
        with dsl.Else():
            note(text="else")

    assert broken(pipeline) == set()  # so KH211 is not among them
    assert run(pipeline).notes == ["else"]
