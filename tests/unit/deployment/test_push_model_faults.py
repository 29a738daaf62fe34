"""push_model under kill -9, SIGTERM, competition, full disks and files that change: the destination stays whole."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import filelock
import pytest

from kfp_hybrid.components.deployment.push_model import publisher
from kfp_hybrid.components.deployment.push_model.publisher import latest_version, list_versions, rollback
from kfp_hybrid.step import StepError, step

NOBODY = 65534
WATCHED_EVENTS = {"open", "os.mkdir", "os.rename", "os.rmdir", "os.remove", "os.scandir", "os.listdir", "shutil.rmtree"}


def publish(destination, **options):
    return publisher.publish(str(destination), **{"blessed": True, "lock_timeout": 60, **options})


def at_event(number, act):
    """In a child: call `act` just before the numbered system operation. Hooks cannot be removed, children can."""
    remaining = [number]

    def hook(event, arguments):
        if event in WATCHED_EVENTS:
            remaining[0] -= 1
            if remaining[0] == 0:
                act()

    sys.addaudithook(hook)


def at_open(path, count, act):
    """In a child: call `act` just before the file at `path` is opened for the `count`-th time."""
    remaining = [count]

    def hook(event, arguments):
        if event == "open" and isinstance(arguments[0], str | Path) and str(arguments[0]) == str(path):
            remaining[0] -= 1
            if remaining[0] == 0:
                act()

    sys.addaudithook(hook)


def hidden(destination):
    return [path for path in destination.iterdir() if path.name.startswith(".") and path.name != ".lock"]


# Killed


@pytest.fixture
def two_versions(tmp_path, make_model):
    """A destination where the push of a third version also deletes the first."""
    destination = tmp_path / "template"
    for content in "ab":
        publish(destination, model=make_model(content))
    return destination


def end_at_every_event(tmp_path, template, child, end, work, check):
    """Run `work` on copies of `template`, ending it at its 1st, 2nd, ... operation until it comes to its own end."""
    number = 0
    while True:
        number += 1
        destination = tmp_path / f"served-{number}"
        shutil.copytree(template, destination)

        def doomed(destination=destination, number=number):
            at_event(number, end)
            work(destination)

        status, _ = child(doomed).result()
        check(destination, status)
        shutil.rmtree(destination)
        if status == 0:
            return number - 1


def kill_myself():
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_push_killed_at_any_operation_leaves_whole_versions_and_the_next_one_finishes(
    tmp_path, make_model, child, consistent, tidy, two_versions
):
    model, leftovers = make_model("c"), []

    def push(destination):
        publish(destination, model=model, keep=2)

    def check(destination, status):
        assert status in (0, -signal.SIGKILL)
        assert consistent(destination) in ([1, 2], [1, 2, 3], [2, 3])
        leftovers.extend(hidden(destination))
        assert publish(destination, model=model, keep=2).version.number == 3
        assert consistent(destination) == [2, 3]
        assert (destination / "LATEST").read_text() == "3\n"
        tidy(destination)

    points = end_at_every_event(tmp_path, two_versions, child, kill_myself, push, check)
    assert points > 40, "the push was hardly interrupted"
    assert leftovers, "no kill fell into the copying"


def test_a_rollback_killed_at_any_operation_leaves_latest_old_or_new(tmp_path, child, consistent, two_versions):
    seen = set()

    def check(destination, status):
        assert consistent(destination) == [1, 2]
        seen.add(latest_version(str(destination)))
        assert rollback(str(destination), 1).number == 1

    points = end_at_every_event(
        tmp_path, two_versions, child, kill_myself, lambda destination: rollback(str(destination), 1), check
    )
    assert points > 10
    assert seen == {1, 2}


def test_a_push_told_to_stop_at_any_operation_cleans_up_after_itself(
    tmp_path, make_model, child, consistent, tidy, two_versions
):
    model = make_model("c")

    def push(destination):
        with step():
            publish(destination, model=model, keep=2)
            os._exit(0)  # before the step stops listening to SIGTERM

    def check(destination, status):
        assert status in (0, 143)
        consistent(destination)
        assert publish(destination, model=model, keep=2).version.number == 3
        tidy(destination)

    def stop_myself():
        os.kill(os.getpid(), signal.SIGTERM)

    assert end_at_every_event(tmp_path, two_versions, child, stop_myself, push, check) > 40


def test_a_process_killed_at_random_moments_never_publishes_a_part(tmp_path, make_model, consistent, tidy):
    big = {f"variables/shard-{i}": os.urandom(1 << 20) for i in range(16)}
    model, destination = make_model(**big), tmp_path / "served"
    publish(destination, model=make_model("first"))
    source = (
        "from kfp_hybrid.components.deployment.push_model.publisher import publish\n"
        "print('ready', flush=True)\n"
        f"publish({str(destination)!r}, model={model!r}, blessed=True)\n"
    )
    moments = random.Random(7)
    interrupted = 0
    for _ in range(12):
        process = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(moments.uniform(0, 0.15))
        process.kill()
        process.communicate()
        interrupted += process.returncode == -signal.SIGKILL
        assert consistent(destination) in ([1], [1, 2])
    assert interrupted
    assert publish(destination, model=model).version.number == 2
    assert consistent(destination) == [1, 2]
    tidy(destination)


def test_the_lock_of_a_killed_push_is_free_at_once(tmp_path, make_model, child):
    reader, writer = os.pipe()

    def hold():
        with filelock.FileLock(tmp_path / ".lock"):
            os.write(writer, b"held")
            time.sleep(600)

    holder = child(hold)
    os.read(reader, 4)
    with pytest.raises(StepError, match=r"another process has been publishing to .* for 0\.3 seconds; wait for it"):
        publish(tmp_path, model=make_model(), lock_timeout=0.3)
    assert list_versions(str(tmp_path)) == []
    holder.kill()
    holder.result()
    assert publish(tmp_path, model=make_model(), lock_timeout=0.3).version.number == 1


def test_only_our_own_leftovers_are_removed(tmp_path, make_model):
    kept = [tmp_path / ".notes.partial", tmp_path / ".git"]
    for folder in [*kept, tmp_path / ".0123456789abcdef.partial"]:
        (folder / "7").mkdir(parents=True)
    publish(tmp_path, model=make_model())
    assert all(folder.exists() for folder in kept)
    assert not (tmp_path / ".0123456789abcdef.partial").exists()


# Competition


@pytest.mark.parametrize("pushers", [2, 10])
def test_pushers_of_different_models_get_different_numbers(tmp_path, make_model, child, consistent, tidy, pushers):
    destination = tmp_path / "served"
    models = [make_model(f"model {i}") for i in range(pushers)]
    children = [child(lambda model=model: publish(destination, model=model).version.number) for model in models]
    outcomes = [each.result() for each in children]
    assert [status for status, _ in outcomes] == [0] * pushers
    assert sorted(number for _, number in outcomes) == list(range(1, pushers + 1))
    assert consistent(destination) == list(range(1, pushers + 1))
    assert latest_version(str(destination)) == pushers
    tidy(destination)


def test_pushers_of_the_same_model_publish_it_once(tmp_path, make_model, child, consistent):
    destination, model = tmp_path / "served", make_model()
    children = [child(lambda: publish(destination, model=model)) for _ in range(10)]
    publications = [each.result()[1] for each in children]
    assert {publication.version.number for publication in publications} == {1}
    assert sum(publication.copied for publication in publications) == 1
    assert consistent(destination) == [1]


def test_a_reader_without_a_lock_never_sees_a_part_of_a_version(tmp_path, make_model, child, consistent):
    destination = tmp_path / "served"
    publish(destination, model=make_model("first"))
    models = [make_model(f"model {i}") for i in range(12)]
    turns, next_turn = os.pipe()

    def push_all(part):
        for model in part:
            os.read(turns, 1)
            publish(destination, model=model)

    pushers = [child(lambda part=part: push_all(part)) for part in (models[:6], models[6:])]
    for expected in range(3, 15, 2):
        os.write(next_turn, b"..")  # two pushes, which the reader sees the whole of
        while len(versions := consistent(destination)) < expected:
            assert [version.number for version in list_versions(str(destination))] >= versions
    assert [each.result()[0] for each in pushers] == [0, 0]
    for end in (turns, next_turn):
        os.close(end)


# Files that change, disks that lie


def test_a_model_that_changes_while_it_is_copied_is_not_published(tmp_path, make_model, child, consistent, tidy):
    destination, model = tmp_path / "served", Path(make_model())
    publish(destination, model=make_model("before"))

    def push():
        at_open(model / "saved_model.pb", 2, lambda: os.truncate(model / "saved_model.pb", 3))
        publish(destination, model=str(model))

    _, error = child(push).result()
    assert isinstance(error, StepError)
    assert "saved_model.pb changed while it was copied; run the step again" in str(error)
    assert consistent(destination) == [1]
    tidy(destination)


def test_a_copy_that_reads_back_differently_is_not_published(tmp_path, make_model, child, consistent, tidy):
    destination, model = tmp_path / "served", make_model()
    publish(destination, model=make_model("before"))

    def corrupt():
        (copied,) = destination.glob(".*.partial/2/saved_model.pb")
        os.truncate(copied, 3)

    def push():
        def hook(event, arguments):
            if event == "open" and str(arguments[0]).endswith("MANIFEST.json") and arguments[1] == "x":
                corrupt()

        sys.addaudithook(hook)
        publish(destination, model=model)

    _, error = child(push).result()
    assert isinstance(error, StepError)
    assert "does not give back what was written: saved_model.pb has other bytes" in str(error)
    assert consistent(destination) == [1]
    tidy(destination)


# Disks that are full or read-only


def mount(folder, options):
    """Mount a small file system of its own, or skip where that is not allowed."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("this user may not mount file systems")


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount(folder, "size=1m")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_fails_in_one_line_and_leaves_what_was_there(small_disk, make_model, consistent, tidy):
    destination = small_disk / "served"
    publish(destination, model=make_model())
    model = make_model(**{"variables/big": bytes(2 << 20)})
    with pytest.raises(StepError, match=r"No space left on device.*; free some space or choose another") as caught:
        publish(destination, model=model)
    assert "\n" not in str(caught.value)
    assert consistent(destination) == [1]
    tidy(destination)
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    assert publish(destination, model=model).version.number == 2
    assert consistent(destination) == [1, 2]


def test_a_disk_without_room_for_any_file_fails_in_one_line(tmp_path, make_model):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount(folder, "nr_inodes=2")  # the root folder and the destination
    try:
        with pytest.raises(StepError, match="No space left on device"):
            publish(folder / "served", model=make_model())
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_limit_on_file_sizes_fails_in_one_line_and_cleans_up(tmp_path, make_model, child, consistent, tidy):
    destination = tmp_path / "served"
    publish(destination, model=make_model())
    model = make_model(**{"variables/big": bytes(1 << 20)})

    def push():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        publish(destination, model=model)

    _, error = child(push).result()
    assert isinstance(error, StepError)
    assert "File too large" in str(error)
    assert consistent(destination) == [1]
    tidy(destination)


def test_a_read_only_file_system_fails_in_one_line(small_disk, make_model):
    destination = small_disk / "served"
    publish(destination, model=make_model("a"))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StepError, match=r"Read-only file system.*; make it writable for this user or choose another"):
        publish(destination, model=make_model("b"))
    with pytest.raises(StepError, match="Read-only file system"):
        rollback(str(destination), 1)
    assert [version.number for version in list_versions(str(destination))] == [1]


def as_nobody(work):
    """`work` as a user for whom permissions count; root may write everywhere."""

    def run():
        if os.geteuid() == 0:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        return work()

    return run


def test_a_directory_without_write_permission_fails_in_one_line(open_folder, child):
    model, destination = open_folder / "model", open_folder / "served"
    model.mkdir()
    (model / "saved_model.pb").write_bytes(b"graph")
    destination.mkdir()
    for target in (destination, destination / "below"):
        os.chmod(destination, 0o555)
        _, error = child(as_nobody(lambda target=target: publish(target, model=str(model)))).result()
        assert isinstance(error, StepError)
        assert "Permission denied" in str(error)
        assert "make it writable for this user or choose another" in str(error)
    assert list(destination.iterdir()) == []


def test_a_model_that_cannot_be_read_is_named(open_folder, child):
    model, destination = open_folder / "model", open_folder / "served"
    (model / "variables").mkdir(parents=True)
    (model / "saved_model.pb").write_bytes(b"graph")
    destination.mkdir(mode=0o777)
    os.chmod(destination, 0o777)
    for path, mode in ((model / "saved_model.pb", 0o600), (model / "variables", 0o700)):
        os.chown(path, os.geteuid(), os.getegid())
        os.chmod(path, mode if os.geteuid() == 0 else 0)
        _, error = child(as_nobody(lambda: publish(destination, model=str(model)))).result()
        assert isinstance(error, StepError)
        assert "cannot read" in str(error)
        assert str(path) in str(error)
        os.chmod(path, 0o755)
    assert list_versions(str(destination)) == []


def test_old_versions_that_cannot_be_deleted_do_not_fail_the_push(open_folder, child):
    destination = open_folder / "served"
    for content in (b"a", b"b"):
        model = open_folder / content.decode()
        model.mkdir()
        (model / "saved_model.pb").write_bytes(content)
        publish(destination, model=str(model))
    (open_folder / "c").mkdir()
    (open_folder / "c/saved_model.pb").write_bytes(b"c")
    for path in (destination, destination / ".lock", destination / "LATEST"):
        os.chmod(path, 0o777)

    def push():
        return publish(destination, model=str(open_folder / "c"), keep=1).version.number

    _, number = child(as_nobody(push)).result()
    assert number == 3
    assert latest_version(str(destination)) == 3
