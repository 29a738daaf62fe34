"""Trees and sync between any two stores: complete, idempotent, resumable, nothing deleted unasked, no way out."""

import io
import os
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from faulty_proxy import Answer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kfp_hybrid import storage
from kfp_hybrid.storage import StorageError
from kfp_hybrid.storage.command import sync
from kfp_hybrid.storage.locations import relative_path

TREE = {"a.txt": b"a", "empty": b"", "sub/ü ñ/b c.txt": b"b", "sub/+%&#?.bin": b"c", "large": os.urandom(20 << 20)}
COMMAND = [sys.executable, "-m", "kfp_hybrid.storage"]


def make(folder: Path, tree=TREE) -> Path:
    for name, data in tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def read(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def other(request, tmp_path, place):
    """A second place of another kind."""
    kind = "gs" if "s3://" in place else "s3"
    return request.getfixturevalue(kind) + "/other"


def test_a_tree_comes_back_as_it_was(place, tmp_path):
    assert storage.upload(make(tmp_path / "tree"), place).copied == len(TREE)
    storage.download(place, tmp_path / "back")
    assert read(tmp_path / "back") == TREE


def test_a_tree_goes_from_store_to_store_and_back_without_a_local_copy(place, other, tmp_path, monkeypatch):
    storage.upload(make(tmp_path / "tree"), place)
    before = set(tmp_path.rglob("*"))
    there = storage.sync(place, other, verify=True)
    assert (there.copied, there.bytes) == (len(TREE), sum(map(len, TREE.values())))
    again = storage.sync(place, other)
    assert (again.copied, again.unchanged) == (0, len(TREE))
    back = storage.sync(other, place)
    assert (back.copied, back.unchanged) == (0, len(TREE))
    assert set(tmp_path.rglob("*")) == before
    storage.download(other, tmp_path / "back")
    assert read(tmp_path / "back") == TREE


def test_what_is_there_is_not_copied_again(place, tmp_path):
    storage.upload(make(tmp_path / "tree"), place)
    assert storage.upload(tmp_path / "tree", place).copied == 0
    storage.download(place, tmp_path / "back")
    assert storage.download(place, tmp_path / "back").copied == 0
    (tmp_path / "tree/a.txt").write_bytes(b"A")  # the same size
    assert storage.upload(tmp_path / "tree", place).copied == 1
    assert storage.download(place, tmp_path / "back").copied == 1
    assert (tmp_path / "back/a.txt").read_bytes() == b"A"


def test_objects_that_others_wrote_are_recognized_too(s3, s3_server, tmp_path):
    """Large ones have neither an MD5 nor a noted sha256."""
    from minio import Minio
    from s3_server import ACCESS_KEY, SECRET_KEY

    bucket = s3.split("/")[2]
    client = Minio(f"127.0.0.1:{s3_server.port}", ACCESS_KEY, SECRET_KEY, secure=False)
    client.put_object(bucket, "folder/large", io.BytesIO(TREE["large"]), len(TREE["large"]), part_size=5 << 20)
    client.put_object(bucket, "folder/a.txt", io.BytesIO(b"a"), 1)
    for target in (f"s3://{bucket}/copy", str(tmp_path / "copy")):
        assert storage.sync(s3, target).copied == 2
        assert storage.sync(s3, target).copied == 0


def test_single_files(place, tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    storage.upload(tmp_path / "file", f"{place}/a/b")
    storage.upload(tmp_path / "file", f"{place}/c/")
    assert [entry.key for entry in storage.open_store(place).entries()] == ["a/b", "c/file"]
    (tmp_path / "folder").mkdir()
    storage.download(f"{place}/a/b", tmp_path / "folder")
    storage.download(f"{place}/a/b", tmp_path / "new/name")
    assert (tmp_path / "folder/b").read_bytes() == (tmp_path / "new/name").read_bytes() == b"x"


def test_nothing_is_deleted_unless_asked(place, tmp_path):
    make(tmp_path / "tree", {"a": b"1", "b/c": b"2"})
    storage.open_store(place).write_bytes("old/x", b"0")
    assert storage.sync(str(tmp_path / "tree"), place).deleted == 0
    assert storage.open_store(place).exists("old/x")
    assert storage.sync(str(tmp_path / "tree"), place, delete=True).deleted == 1
    assert [entry.key for entry in storage.open_store(place).entries()] == ["a", "b/c"]


def test_an_empty_source_is_an_error_and_deletes_nothing(place, tmp_path):
    storage.open_store(place).write_bytes("a", b"x")
    with pytest.raises(StorageError, match="there is nothing in"):
        storage.sync(str(tmp_path / "nothing"), place, delete=True)
    assert storage.open_store(place).exists("a")


def test_places_within_each_other_are_refused(place):
    storage.open_store(place).write_bytes("a/b", b"x")
    with pytest.raises(StorageError, match="lie within each other"):
        storage.sync(place, f"{place}/a")


def test_verify_finds_what_differs(s3, gs, buckets, tmp_path, monkeypatch):
    storage.upload(make(tmp_path / "tree", {"a": b"content"}), s3)
    storage.sync(s3, gs)
    buckets.blobs["bucket"]["folder/a"].data = b"c0ntent"  # and its metadata still say otherwise
    with pytest.raises(storage.Damaged, match="differs from"):
        storage.sync(s3, gs, verify=True)


def test_what_readers_look_for_first_is_written_last(faults, s3, tmp_path):
    make(tmp_path / "tree", {"LATEST": b"1", "1/MANIFEST.json": b"{}", "1/saved_model.pb": b"g", "1/x": b"x", "0": b""})
    storage.upload(tmp_path / "tree", s3)
    names = [request.path.rpartition("/")[2] for request in faults.requests if request.method == "PUT"]
    assert names[2:] == ["saved_model.pb", "MANIFEST.json", "LATEST"]


@pytest.mark.parametrize("key", ["../evil", "a/../../evil", "/etc/evil", "a//b", "./a", "a/.", "nul\0", "x" * 300])
def test_keys_that_are_no_files_below_the_folder_are_refused_before_anything_is_written(gs, buckets, tmp_path, key):
    buckets.put("bucket", "folder/a.txt", b"x", {}, None)
    buckets.put("bucket", f"folder/{key}", b"x", {}, None)
    with pytest.raises(StorageError, match=r"cannot be a file|255 at most"):
        storage.download("gs://bucket/folder", tmp_path / "out")
    assert not (tmp_path / "out").exists() or read(tmp_path / "out") == {}
    assert not (tmp_path / "evil").exists()


def test_symbolic_links_lead_nowhere(s3, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/link").symlink_to(tmp_path / "outside")
    storage.open_store(s3).write_bytes("link/a", b"x")
    with pytest.raises(StorageError, match="leads out of"):
        storage.download(s3, tmp_path / "out")
    assert read(tmp_path / "outside") == {}


def test_markers_of_directories_are_passed_over(gs, buckets, tmp_path):
    for name in ("folder/", "folder/sub/", "folder/sub/a"):
        buckets.put("bucket", name, b"", {}, None)
    storage.download("gs://bucket/folder", tmp_path / "out")
    assert read(tmp_path / "out") == {"sub/a": b""}


def test_listings_in_many_pages(gs, buckets, tmp_path):
    buckets.page_size = 7
    for number in range(50):
        buckets.put("bucket", f"folder/{number:02}/x", b"", {}, None)
    store = storage.open_store("gs://bucket/folder")
    assert [entry.key for entry in store.entries()] == [f"{number:02}/x" for number in range(50)]
    assert store.folders() == [f"{number:02}" for number in range(50)]


def test_ten_thousand_small_objects(s3, tmp_path):
    make(tmp_path / "tree", {f"{number % 100:02}/{number}": b"%d" % number for number in range(10_000)})
    assert storage.upload(tmp_path / "tree", s3).copied == 10_000
    assert storage.upload(tmp_path / "tree", s3).unchanged == 10_000
    storage.download(s3, tmp_path / "back")
    assert read(tmp_path / "back") == read(tmp_path / "tree")


LARGE_GIB = float(os.environ.get("KFP_HYBRID_TEST_LARGE_GIB", "1"))


def test_memory_is_bounded_however_large_the_object(s3, s3_server, tmp_path):
    """Peak memory of processes that move one sparse object there and back; 5 with KFP_HYBRID_TEST_LARGE_GIB=5."""
    size = int(LARGE_GIB * (1 << 30))
    with (tmp_path / "large").open("wb") as file:
        file.truncate(size)
        file.seek(size // 2)
        file.write(b"not only zeros")
    measure = (
        "import re, runpy, sys\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_module('kfp_hybrid.storage', run_name='__main__')\n"
        "print(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])"
    )
    peaks = []
    for words in (
        ["upload", str(tmp_path / "large"), f"{s3}/large"],
        ["download", f"{s3}/large", str(tmp_path / "back")],
    ):
        done = subprocess.run(
            [sys.executable, "-c", measure, "storage", *words], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout.split()[-1]) << 10)
    assert storage.open_store(s3).require("large").size == (tmp_path / "back").stat().st_size == size
    assert subprocess.run(["cmp", str(tmp_path / "large"), str(tmp_path / "back")]).returncode == 0
    assert max(peaks) < 300 << 20, peaks


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("direction", ["to S3", "from S3"])
def test_a_sync_that_is_killed_leaves_nothing_half_written_and_goes_on(s3, faults, tmp_path, seed, direction):
    tree = {f"{number}": os.urandom(3 << 20) for number in range(8)} | {"large": os.urandom(40 << 20)}
    make(tmp_path / "tree", tree)
    if direction == "from S3":
        storage.upload(tmp_path / "tree", s3)
    source, target = (str(tmp_path / "tree"), s3) if direction == "to S3" else (s3, str(tmp_path / "out"))
    after = random.Random(seed).randrange(2, 12) + len(faults.requests)
    words = ["upload", source, target] if direction == "to S3" else ["download", source, target]
    process, others = None, faults.connections

    def kill(request):
        if process and request.number > after and process.poll() is None:
            process.send_signal(signal.SIGKILL)

    faults.fault = kill
    process = subprocess.Popen([*COMMAND, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert process.wait(120) == -signal.SIGKILL
    faults.fault = lambda request: None
    faults.wait_until_gone(others)
    store = storage.open_store(target)
    whole = [entry.key for entry in store.entries()]
    for key in whole:
        assert store.read(key) == tree[key]
    transfer = storage.sync(source, target)
    assert transfer.unchanged == len(whole)
    assert transfer.copied + transfer.unchanged == len(tree)
    assert {entry.key: store.read(entry.key) for entry in store.entries()} == tree


def test_partial_files_of_killed_processes_are_removed_later(s3, tmp_path):
    make(tmp_path / "out", {".kfp-hybrid-partial-0123456789abcdef": b"old", ".kfp-hybrid-partial-new": b"at work"})
    os.utime(tmp_path / "out/.kfp-hybrid-partial-0123456789abcdef", (0, 0))
    storage.open_store(s3).write_bytes("a", b"x")
    storage.download(s3, tmp_path / "out")
    assert read(tmp_path / "out") == {"a": b"x", ".kfp-hybrid-partial-new": b"at work"}


def test_the_command_says_what_it_did(s3, tmp_path):
    make(tmp_path / "tree", {"a": b"1"})
    result = CliRunner().invoke(sync, [str(tmp_path / "tree"), s3])
    assert result.exit_code == 0
    assert "1 copied" in result.output and "MB/s" in result.output
    assert "0 copied" in CliRunner().invoke(sync, [str(tmp_path / "tree"), s3, "--verify"]).output


def test_the_module_ends_with_one_line_and_a_status(s3, tmp_path):
    done = subprocess.run([*COMMAND, "download", f"{s3}/nothing", str(tmp_path / "x")], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: there is nothing in s3://") and done.stderr.count("\n") == 1


def test_the_interface_needs_no_client_library():
    code = (
        "import sys, kfp_hybrid.storage as s; s.open_store('.')\n"
        "print([name for name in ('minio', 'google.auth', 'urllib3', 'tenacity', 'rich') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_an_upload_fails_as_a_whole_when_one_object_is_refused(faults, s3, tmp_path):
    make(tmp_path / "tree", {"a": b"1", "b": b"2", "LATEST": b"1"})
    denied = Answer(403, b"<Error><Code>AccessDenied</Code></Error>")
    faults.fault = lambda request: denied if request.method == "PUT" and request.path.endswith("/b") else None
    with pytest.raises(StorageError, match="/b: access denied"):
        storage.upload(tmp_path / "tree", s3)
    assert not storage.open_store(s3).exists("LATEST")


PARTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="/\0"), min_size=1, max_size=20)
KEYS = st.lists(PARTS.filter(lambda part: part not in (".", "..") and len(part.encode()) < 256), min_size=1, max_size=4)


@given(KEYS)
def test_every_key_without_dots_is_a_path_below_the_folder_and_back(parts):
    path = relative_path("/".join(parts))
    assert not path.is_absolute() and path.as_posix() == "/".join(parts)


@given(st.text(alphabet="ab./\0", max_size=12))
def test_no_key_leads_out_of_the_folder(key):
    try:
        path = relative_path(key)
    except StorageError:
        return
    assert os.path.normpath(Path("/root") / path).startswith("/root/")


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(KEYS.map("/".join), st.binary(max_size=50), min_size=1, max_size=5))
def test_any_tree_survives_the_way_through_google(gs, buckets, tmp_path, tree):
    if any(one != other and other.startswith(one + "/") for one in tree for other in tree):
        return  # a file system has no file that is a folder, too
    buckets.blobs["bucket"].clear()
    store = storage.open_store(gs)
    for key, data in tree.items():
        store.write_bytes(key, data)
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    storage.download(f"{gs}/", folder)
    assert read(folder) == tree
    buckets.blobs["bucket"].clear()
    storage.upload(folder, gs)
    assert buckets.files() == {f"folder/{key}": data for key, data in tree.items()}
