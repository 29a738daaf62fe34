"""What holds for every store: files, S3 (a real server) and Google Cloud Storage (the real client)."""

import io

import pytest

from kfp_hybrid import storage
from kfp_hybrid.storage import Changed, Condition, Entry, NotFound

LARGE = bytes(range(256)) * (40 << 12)  # 40 MiB: several parts and ranges


def test_what_was_written_is_read(place):
    store = storage.open_store(place)
    store.write_bytes("a/b.txt", b"hello")
    assert store.read("a/b.txt") == b"hello"
    assert store.read("a/b.txt", 1, 3) == b"ell"
    assert store.read("a/b.txt", 3) == b"lo"


def test_large_objects_go_in_parts_and_come_in_ranges(place):
    store = storage.open_store(place)
    written = store.write("large", io.BytesIO(LARGE), Entry("large", len(LARGE)))
    assert store.require("large").size == len(LARGE)
    with store.open("large") as stream:
        assert stream.read() == LARGE
        stream.seek(-5, io.SEEK_END)
        assert stream.read() == LARGE[-5:]
        stream.seek(20_000_000)
        assert stream.read(10) == LARGE[20_000_000:20_000_010]
    assert len(written.sha256) == 64


def test_empty_objects_are_objects(place):
    store = storage.open_store(place)
    store.write_bytes("empty", b"")
    assert store.require("empty").size == 0
    assert store.read("empty") == b""
    with store.open("empty") as stream:
        assert stream.read() == b""


def test_entries_are_those_below_the_location_in_order(place):
    store = storage.open_store(place)
    for key in ("b", "a/2", "a/1", "a b/ü", "c/d/e"):
        store.write_bytes(key, key.encode())
    assert [entry.key for entry in store.entries()] == sorted(["b", "a/2", "a/1", "a b/ü", "c/d/e"])
    assert [entry.key for entry in store.entries("a/")] == ["a/1", "a/2"]
    assert [entry.size for entry in store.entries("c")] == [5]
    assert store.folders() == ["a", "a b", "c"]
    assert [entry.key for entry in storage.open_store(f"{place}/a").entries()] == ["1", "2"]


def test_a_location_does_not_reach_into_its_neighbour(place):
    storage.open_store(place).write_bytes("models-old/1", b"")
    storage.open_store(place).write_bytes("models/1", b"")
    assert [entry.key for entry in storage.open_store(f"{place}/models").entries()] == ["1"]


def test_a_location_may_be_an_object(place):
    storage.open_store(place).write_bytes("a/b", b"content")
    store = storage.open_store(f"{place}/a/b")
    assert store.read("") == b"content"
    assert store.uri_of("") == f"{place}/a/b"


def test_what_is_not_there(place):
    store = storage.open_store(place)
    assert store.stat("nothing") is None
    assert not store.exists("nothing")
    with pytest.raises(NotFound, match="nothing"):
        store.read("nothing")
    store.delete(["nothing"])
    assert list(store.entries()) == []
    assert store.folders() == []


def test_exists_knows_objects_and_folders(place):
    store = storage.open_store(place)
    store.write_bytes("a/b/c", b"")
    assert store.exists("a/b/c")
    assert store.exists("a/b")
    assert not store.exists("a/b/c/d")
    assert store.exists()


def test_deleting_a_tree_leaves_the_rest(place):
    store = storage.open_store(place)
    for key in ("a/1", "a/b/2", "ab", "c"):
        store.write_bytes(key, b"x")
    assert store.delete_tree("a/") == 2
    assert [entry.key for entry in store.entries()] == ["ab", "c"]


def test_writing_again_replaces(place):
    store = storage.open_store(place)
    store.write_bytes("a", b"one")
    store.write_bytes("a", b"three")
    assert store.read("a") == b"three"


def test_a_write_that_must_not_replace_does_not(place):
    store = storage.open_store(place)
    store.write_bytes("a", b"one", Condition())
    with pytest.raises(Changed):
        store.write_bytes("a", b"two", Condition())
    assert store.read("a") == b"one"


def test_a_write_replaces_only_what_it_has_seen(place):
    store = storage.open_store(place)
    store.write_bytes("a", b"one")
    seen = store.require("a")
    store.write_bytes("a", b"other", Condition(seen.tag))
    with pytest.raises(Changed):
        store.write_bytes("a", b"late", Condition(seen.tag))
    assert store.read("a") == b"other"


def test_the_content_of_an_open_object_does_not_change_under_the_reader(place):
    store = storage.open_store(place)
    store.write_bytes("a", b"x" * (20 << 20))
    seen = store.require("a")
    store.write_bytes("a", b"y" * (20 << 20))
    if not place.startswith("/"):  # an open file stays what it was
        with pytest.raises(Changed):
            store.read_range(seen, 0, 10)


def test_bytes_that_are_not_the_announced_ones_are_not_written(place):
    store = storage.open_store(place)
    for size in (5, len(LARGE)):
        with pytest.raises(storage.Damaged, match="sha256"):
            store.write("a", io.BytesIO(LARGE[:size]), Entry("a", size, sha256="0" * 64))
        assert not store.exists("a")


def test_a_stream_that_ends_early_is_not_written(place):
    store = storage.open_store(place)
    for size in (5, len(LARGE)):
        with pytest.raises(storage.Damaged, match="instead of"):
            store.write("a", io.BytesIO(LARGE[: size - 1]), Entry("a", size))
        assert not store.exists("a")
