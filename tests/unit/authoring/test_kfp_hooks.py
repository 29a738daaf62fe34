"""What this project takes for granted about the insides of kfp.local; a new kfp that breaks it fails here first."""

import inspect
import os

import pytest
from kfp import local
from kfp.local import cache, docker_task_handler, subprocess_task_handler, task_dispatcher, task_handler_interface

from kfp_hybrid.targets.local import kfp_hooks


def parameters(function):
    return list(inspect.signature(function).parameters)


HANDLERS = {"SubprocessTaskHandler": subprocess_task_handler, "DockerTaskHandler": docker_task_handler}
RUNNERS = {"SubprocessTaskHandler": local.SubprocessRunner(use_venv=False), "DockerTaskHandler": local.DockerRunner()}


@pytest.mark.parametrize("name", HANDLERS)
def test_kfp_creates_step_handlers_by_the_name_and_with_the_arguments_that_are_hooked(name):
    theirs = getattr(HANDLERS[name], name)
    assert issubclass(theirs, task_handler_interface.ITaskHandler)
    assert parameters(theirs.__init__) == ["self", "image", "full_command", "pipeline_root", "runner", "env_vars"]
    assert f"{HANDLERS[name].__name__.rpartition('.')[2]}.{name}" in inspect.getsource(task_dispatcher)


def test_kfp_creates_its_cache_by_the_name_and_with_the_arguments_that_are_hooked():
    assert parameters(cache.LocalCache.__init__) == ["self", "cache_root"]
    assert parameters(cache.LocalCache.compute_key)[:5] == parameters(kfp_hooks.StepCache.compute_key)[:5]
    assert "LocalCache(cache_root=cache_root)" in inspect.getsource(cache.get_local_cache)


@pytest.mark.parametrize("name", HANDLERS)
def test_the_hooks_are_gone_after_the_run(name):
    before = getattr(HANDLERS[name], name), cache.LocalCache
    with kfp_hooks.hooked(RUNNERS[name], lambda *step: 0, "1", lambda *hit: None, lambda *step: None):
        now = getattr(HANDLERS[name], name), cache.LocalCache
        assert now[0] is not before[0] and now[1] is not before[1]
    assert (getattr(HANDLERS[name], name), cache.LocalCache) == before


@pytest.fixture
def key(tmp_path):
    def compute(version="1", **arguments):
        nothing = {"on_hit": lambda *hit: None, "on_unknown": lambda *step: None}
        step_cache = kfp_hooks.StepCache(str(tmp_path / "cache"), version=version, **nothing)
        return step_cache.compute_key("comp-read", "image", ["python3"], arguments)

    return compute


def test_a_key_changes_with_the_code_and_with_the_arguments(key):
    assert key() == key()
    assert len({key(), key(version="2"), key(a=1), key(a=2)}) == 4


def test_a_key_does_not_change_with_the_order_of_the_arguments(key, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert key(first=a, second=b) == key(second=b, first=a) != key(first=b, second=a)


@pytest.mark.parametrize("spelling", ["{}/data.csv", "{}/*.csv", "{}", "file://{}/data.csv", "file://{}"])
def test_a_key_changes_with_the_files_that_an_argument_names(key, tmp_path, spelling):
    folder = tmp_path / "in"
    folder.mkdir()
    argument = spelling.format(folder)
    keys = [key(source=argument)]
    for content in ("one", "three"):
        (folder / "data.csv").write_text(content)
        keys.append(key(source=argument))
    os.utime(folder / "data.csv", ns=(0, 0))
    keys.append(key(source=argument))
    assert len(set(keys)) == 4
    assert key(source=argument) == keys[-1]


@pytest.mark.parametrize("text", ["", "a\nb", "x" * 10_000, "nul\0byte", "[", "ordinary words", "~", "hdfs://a/b"])
def test_an_argument_that_names_no_file_is_no_trouble(key, text):
    assert key(source=text) == key(source=text)
