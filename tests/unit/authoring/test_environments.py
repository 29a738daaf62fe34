"""The environments that stand in for images: made once, never half-made."""

import multiprocessing
import shutil
import subprocess

import pytest

from kfp_hybrid import images
from kfp_hybrid.errors import UserError
from kfp_hybrid.targets.local import environments


@pytest.fixture
def small_image(monkeypatch, tmp_path):
    """A collection with one image whose lock takes a second to install."""
    folder = tmp_path / "images" / "small"
    folder.mkdir(parents=True)
    shutil.copy(images.lock_file("deployment"), folder / "requirements.txt")
    monkeypatch.setattr(images, "_folder", lambda: tmp_path / "images")
    return folder


def made(cache, **options):
    messages = []
    return environments.ensure_environment("small", cache, messages.append), messages


def test_an_environment_holds_what_the_lock_names(small_image, tmp_path):
    python, messages = made(tmp_path / "cache")
    subprocess.run([python, "-c", "import filelock"], check=True)
    assert len(messages) == 1


def test_a_second_call_makes_nothing(small_image, tmp_path):
    python, _ = made(tmp_path / "cache")
    made_at = python.stat().st_mtime_ns
    again, messages = made(tmp_path / "cache")
    assert (again, again.stat().st_mtime_ns, messages) == (python, made_at, [])


def test_another_lock_is_another_environment(small_image, tmp_path):
    python, _ = made(tmp_path / "cache")
    with (small_image / "requirements.txt").open("a") as lock:
        lock.write("# changed\n")
    assert made(tmp_path / "cache")[0] != python


def test_a_build_that_was_killed_is_done_again(small_image, tmp_path):
    python, _ = made(tmp_path / "cache")
    (python.parents[1] / environments.MARKER).unlink()
    shutil.rmtree(python.parents[1] / "lib")
    again, messages = made(tmp_path / "cache")
    subprocess.run([again, "-c", "import filelock"], check=True)
    assert len(messages) == 1


def test_a_build_that_fails_leaves_nothing_and_says_why(small_image, tmp_path):
    (small_image / "requirements.txt").write_text("no-such-package-kfp-hybrid==1.0 --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(UserError, match="cannot make the environment of image small") as refused:
        made(tmp_path / "cache")
    assert "no-such-package-kfp-hybrid" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not list((tmp_path / "cache" / "environments").glob("*/"))


def test_a_package_with_another_hash_is_not_installed(small_image, tmp_path):
    lock = small_image / "requirements.txt"
    pin = next(line for line in lock.read_text().splitlines() if line.startswith("filelock=="))
    lock.write_text(f"{pin}\n    --hash=sha256:{'0' * 64}\n")
    with pytest.raises(UserError, match="cannot make the environment"):
        made(tmp_path / "cache")


def _make(cache, results):
    messages = []
    environments.ensure_environment("small", cache, messages.append)
    results.put(len(messages))


def test_two_builds_at_once_are_one(small_image, tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    builders = [context.Process(target=_make, args=(tmp_path / "cache", results)) for _ in range(3)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert sum(results.get() for _ in builders) == 1


def test_every_lock_is_hashed_and_pinned():
    assert images.names() == ["deployment", "serving", "tensorflow", "validation"]
    for image in images.names():
        lines = images.lock_file(image).read_text().splitlines()
        pins = [line for line in lines if line and line[0].isalnum()]
        assert pins, image
        assert all("==" in pin and pin.endswith("\\") for pin in pins), image
        assert "--hash=sha256:" in images.lock_file(image).read_text()
