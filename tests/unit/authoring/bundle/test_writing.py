"""A bundle on the disk: gone on with after a stop, one writer at a time, refused when it is not as it was made."""

import os
import signal
import subprocess
import sys

import pytest

from kfp_hybrid.bundle.index import Index
from kfp_hybrid.bundle.verify import verify
from kfp_hybrid.bundle.writer import writing
from kfp_hybrid.errors import UserError

CONTENT = {"images/a.tar": b"first" * 1000, "images/b.tar": b"second" * 1000}


def index():
    return Index(version="1", registry="registry.example.com", python="3.11", platform="linux-x86_64")


def write(folder, content=CONTENT, made=None):
    """Write files, the last two of which are in a folder; `made` is told which were."""

    def maker(path, data):
        def make(place):
            place.write_bytes(data)
            if made is not None:
                made.append(path)

        return make

    def make_wheels(place):
        place.mkdir()
        (place / "x.whl").write_bytes(b"x")
        (place / "y.whl").write_bytes(b"y")
        if made is not None:
            made.append("wheels")

    with writing(folder, index(), lambda _: None) as writer:
        for path, data in content.items():
            writer.add(path, str(hash(data)), maker(path, data))
        writer.add("wheels", "1", make_wheels)


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "bundle"
    write(folder)
    return folder


def test_a_bundle_that_was_just_made_is_as_it_was_made(bundle):
    assert verify(bundle).registry == "registry.example.com"


def test_a_second_run_makes_nothing_again(bundle):
    made = []
    write(bundle, made=made)
    assert made == []
    verify(bundle)


def test_what_changed_at_the_source_is_made_again_and_what_is_not_wanted_any_more_goes(bundle):
    made = []
    write(bundle, {"images/a.tar": b"new"}, made)
    assert made == ["images/a.tar"]
    assert not (bundle / "images/b.tar").exists()
    verify(bundle)


@pytest.mark.parametrize("name", ["images/a.tar", "wheels/x.whl"])
def test_what_was_damaged_is_made_again(bundle, name):
    (bundle / name).write_bytes(b"damaged")
    made = []
    write(bundle, made=made)
    assert made == [name if name in CONTENT else "wheels"]
    verify(bundle)


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


FAULTS = {
    "truncated": (lambda file: os.truncate(file, file.stat().st_size - 1), "images/b.tar is damaged or truncated"),
    "flipped": (flip, "images/b.tar is damaged or truncated"),
    "empty": (lambda file: os.truncate(file, 0), "images/b.tar is damaged or truncated"),
    "missing": (lambda file: file.unlink(), "images/b.tar is missing"),
    "surplus": (lambda file: file.with_name("c.tar").touch(), "images/c.tar is surplus"),
    "link": (lambda file: file.with_name("c.tar").symlink_to(file), "c.tar is a link"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bundle_that_is_not_as_it_was_made_is_refused_with_the_name_of_the_file(bundle, fault):
    break_it, message = FAULTS[fault]
    break_it(bundle / "images/b.tar")
    with pytest.raises(UserError, match=message):
        verify(bundle)


@pytest.mark.parametrize("name", ["bundle.json", "SHA256SUMS"])
def test_a_damaged_index_is_refused_with_its_name(bundle, name):
    os.truncate(bundle / name, (bundle / name).stat().st_size - 10)
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        verify(bundle)


def test_checksums_that_do_not_name_the_index_are_refused(bundle):
    sums = bundle / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.read_text().splitlines(True) if "bundle.json" not in line))
    with pytest.raises(UserError, match=r"bundle\.json is missing|bundle\.json is surplus"):
        verify(bundle)


def test_many_faults_are_counted_and_the_first_are_named(bundle):
    for number in range(9):
        (bundle / f"extra-{number}").touch()
    with pytest.raises(UserError, match=r"extra-0 is surplus.* and 4 more"):
        verify(bundle)


def test_a_folder_that_is_no_bundle_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"is no bundle and has other files, such as thesis\.txt"):
        write(tmp_path)
    assert [file.name for file in tmp_path.iterdir() if file.name != ".lock"] == ["thesis.txt"]
    with pytest.raises(UserError, match="has no SHA256SUMS"):
        verify(tmp_path)


def test_a_file_that_no_run_wrote_stops_the_end_of_writing(bundle):
    (bundle / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt is not of the bundle"):
        write(bundle)
    assert (bundle / "notes.txt").exists()


def test_a_run_that_fails_leaves_no_whole_bundle_and_keeps_what_it_had(tmp_path):
    def fail(_):
        raise UserError("the registry is gone")

    with pytest.raises(UserError, match="the registry is gone"), writing(tmp_path, index(), print) as writer:
        writer.add(
            "images/a.tar", str(hash(CONTENT["images/a.tar"])), lambda to: to.write_bytes(CONTENT["images/a.tar"])
        )
        writer.add("images/b.tar", "", fail)
    with pytest.raises(UserError, match="has no SHA256SUMS"):
        verify(tmp_path)
    made = []
    write(tmp_path, made=made)
    assert made == ["images/b.tar", "wheels"]


def test_a_full_disk_is_one_line_that_says_how_to_go_on(tmp_path):
    def fill(_):
        raise OSError(28, "No space left on device", "/bundle/images/a.tar")

    expected = pytest.raises(UserError, match=r"a.tar: No space left on device; .* goes on where it stopped")
    with expected, writing(tmp_path, index(), print) as writer:
        writer.add("images/a.tar", "1", fill)


OTHER_PROCESS = """
import sys
from pathlib import Path
from kfp_hybrid.bundle.index import Index
from kfp_hybrid.bundle.writer import writing
index = Index(version="1", registry="r", python="3.11", platform="p")
with writing(Path(sys.argv[1]), index, print) as writer:
    writer.add("images/a.tar", "1", lambda to: to.write_bytes(b"a"))
    def make(to):
        to.write_bytes(b"half")
        print("in the midst", flush=True)
        sys.stdin.read()
    writer.add("images/b.tar", "2", make)
"""


@pytest.fixture
def other_process(tmp_path):
    """One that is in the midst of writing the bundle `tmp_path / "bundle"`."""
    process = subprocess.Popen([sys.executable, "-c", OTHER_PROCESS, str(tmp_path / "bundle")], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    while "in the midst" not in process.stdout.readline():
        assert process.poll() is None
    yield process
    process.kill()
    process.wait()


def test_of_two_at_once_the_second_is_refused(tmp_path, other_process):
    with pytest.raises(UserError, match="another process is writing"):
        write(tmp_path / "bundle")
    other_process.communicate("")
    verify(tmp_path / "bundle")


def test_after_a_kill_the_next_run_goes_on(tmp_path, other_process):
    other_process.send_signal(signal.SIGKILL)
    other_process.wait()
    folder = tmp_path / "bundle"
    with pytest.raises(UserError, match="is no bundle, or not finished"):
        verify(folder)
    made = []
    with writing(folder, index(), made.append) as writer:
        writer.add("images/a.tar", "1", lambda to: to.write_bytes(b"a"))
        writer.add("images/b.tar", "2", lambda to: to.write_bytes(b"whole"))
    assert made == ["kept  images/a.tar", "wrote images/b.tar"]
    verify(folder)
    assert (folder / "images/b.tar").read_bytes() == b"whole"
