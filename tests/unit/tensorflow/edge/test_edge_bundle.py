"""Laws of the edge bundle: what is written is read, and whatever is changed is found."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kfp_hybrid.edge.bundle import LABELS, MANIFEST, MODEL, SAMPLES, Bundle, write_bundle, write_rejection
from kfp_hybrid.step import StepError

FILES = {MODEL: b"\x1c\x00\x00\x00TFL3" + bytes(range(200)), LABELS: b'{"task": "binary"}', SAMPLES: b"{}"}

names = st.text("abcdefghijklmnopqrstuvwxyz-_.0123456789Öß東", min_size=1, max_size=20).filter(
    lambda name: name not in (".", "..", MANIFEST)
)
numbers = st.floats(allow_nan=False, allow_infinity=False)
measured = st.dictionaries(st.sampled_from(["quantization", "agreement", "latency"]), st.text() | numbers | st.none())


def write(path: Path, **changes: bytes) -> Bundle:
    return write_bundle(path, {**FILES, **changes}, quantization="int8", agreement={"mean_difference": 0.01})


@settings(deadline=None)
@given(extra=st.dictionaries(names, st.binary(max_size=300), max_size=4), measured=measured)
def test_a_bundle_is_read_as_it_was_written(extra, measured):
    with tempfile.TemporaryDirectory() as folder:
        files = {**extra, **FILES}
        written = write_bundle(Path(folder) / "bundle", files, **measured)
        read = Bundle.open(Path(folder) / "bundle")

        assert read == written
        assert {name: (read.path / name).read_bytes() for name in read.manifest["files"]} == files
        assert {name: read.manifest[name] for name in measured} == measured
        assert sorted(p.name for p in read.path.iterdir()) == sorted([*files, MANIFEST])


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_any_changed_byte_is_found(data):
    with tempfile.TemporaryDirectory() as folder:
        bundle = write(Path(folder) / "bundle")
        file = bundle.path / data.draw(st.sampled_from([*FILES, MANIFEST]))
        content = bytearray(file.read_bytes())
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] ^= data.draw(st.integers(1, 255))
        file.write_bytes(content)

        with pytest.raises(StepError, match=r"damaged|does not name|reads"):
            Bundle.open(bundle.path)


@settings(deadline=None)
@given(data=st.data())
def test_a_shorter_or_longer_file_is_found(data):
    with tempfile.TemporaryDirectory() as folder:
        bundle = write(Path(folder) / "bundle")
        file = bundle.path / data.draw(st.sampled_from([*FILES, MANIFEST]))
        content = file.read_bytes()
        cut = data.draw(st.integers(0, len(content) - 1))
        file.write_bytes(data.draw(st.sampled_from([content[:cut], content + content[cut:]])))

        with pytest.raises(StepError):
            Bundle.open(bundle.path)


@given(files=st.dictionaries(names, st.binary(max_size=50), max_size=3))
@settings(deadline=None)
def test_the_same_content_has_the_same_digest(files):
    with tempfile.TemporaryDirectory() as folder:
        one, two = (write(Path(folder) / name, **files) for name in ("one", "two"))
        assert one.sha256 == two.sha256
        assert write(Path(folder) / "three", **{**files, LABELS: b"other"}).sha256 != one.sha256


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "sub/file", "..", ".", "", "..\\secret"])
def test_a_name_that_leads_out_of_the_bundle_is_refused(tmp_path, name):
    (tmp_path / "secret").write_bytes(b"secret")
    bundle = write(tmp_path / "bundle")
    forge(bundle.path, name, b"secret")

    with pytest.raises(StepError, match="no plain file of the bundle"):
        Bundle.open(bundle.path)


def test_a_link_in_a_bundle_is_refused(tmp_path):
    (tmp_path / "outside").write_bytes(FILES[MODEL])
    bundle = write(tmp_path / "bundle")
    (bundle.path / MODEL).unlink()
    (bundle.path / MODEL).symlink_to(tmp_path / "outside")

    with pytest.raises(StepError, match="no plain file of the bundle"):
        Bundle.open(bundle.path)


def forge(path: Path, name: str, content: bytes) -> None:
    """Add an entry to a manifest with correct checksums, as somebody who wants to deceive would."""
    from kfp_hybrid.edge import bundle

    manifest = json.loads((path / MANIFEST).read_text())
    manifest["files"][name] = {"sha256": bundle._sha256(content), "bytes": len(content)}
    (path / MANIFEST).write_bytes(bundle._encode(manifest))


def test_a_missing_file_is_named(tmp_path):
    bundle = write(tmp_path / "bundle")
    (bundle.path / SAMPLES).unlink()
    with pytest.raises(StepError, match=r"cannot read .*samples\.json"):
        Bundle.open(bundle.path)


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir, Path.touch])
def test_what_is_no_bundle_is_called_so(tmp_path, make):
    make(tmp_path / "x")
    with pytest.raises(StepError, match=r"x is not an edge bundle: it has no readable manifest\.json"):
        Bundle.open(tmp_path / "x")


@pytest.mark.parametrize("text", ["[]", "null", '"text"', "{}", '{"format": "kfp-hybrid/edge-bundle"}', "\xff", ""])
def test_a_manifest_that_is_something_else_is_refused(tmp_path, text):
    bundle = write(tmp_path / "bundle")
    (bundle.path / MANIFEST).write_bytes(text.encode("latin-1"))
    with pytest.raises(StepError, match="damaged"):
        Bundle.open(bundle.path)


def test_a_bundle_of_another_version_is_refused(tmp_path):
    from kfp_hybrid.edge import bundle

    path = write(tmp_path / "bundle").path
    (path / MANIFEST).write_bytes(bundle._encode({**json.loads((path / MANIFEST).read_text()), "version": 2}))
    with pytest.raises(StepError, match=r"version 2; this release of kfp-hybrid reads .* version 1"):
        Bundle.open(path)


def test_a_rejection_says_why_there_is_no_bundle(tmp_path):
    write_rejection(tmp_path / "bundle", "rejected: int8 keeps no limits")
    with pytest.raises(StepError, match="is not an edge bundle: the export was rejected: int8 keeps no limits"):
        Bundle.open(tmp_path / "bundle")


def test_a_bundle_replaces_an_older_bundle_or_a_rejection_but_nothing_else(tmp_path):
    write_rejection(tmp_path / "bundle", "rejected")
    write(tmp_path / "bundle", more=b"old")
    assert sorted(write(tmp_path / "bundle").manifest["files"]) == sorted(FILES)
    assert not (tmp_path / "bundle" / "more").exists()

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(StepError, match="is not an edge bundle; it is not overwritten"):
        write(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle", "mine"]


def test_a_bundle_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StepError, match="cannot write"):
        write(tmp_path / "file" / "bundle")
    with pytest.raises(StepError, match="cannot write"):
        write(tmp_path / "bundle", **{"x" * 300: b"a name that no file system takes"})
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_bundle_needs_its_parts(tmp_path):
    with pytest.raises(ValueError, match=r"needs labels\.json, samples\.json"):
        write_bundle(tmp_path / "bundle", {MODEL: b""})


def test_a_bundle_survives_being_copied(tmp_path):
    bundle = write(tmp_path / "bundle")
    assert Bundle.open(shutil.copytree(bundle.path, tmp_path / "küche" / "v 1")).manifest == bundle.manifest


def test_checking_a_bundle_needs_the_standard_library_only(tmp_path):
    write(tmp_path / "bundle")
    script = (
        "import sys; from kfp_hybrid.edge.bundle import Bundle; Bundle.open(sys.argv[1]); "
        "print([m for m in ('numpy', 'pyarrow', 'ai_edge_litert', 'tensorflow', 'kfp') if m in sys.modules])"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "bundle")]
    assert subprocess.run(command, env=os.environ, capture_output=True, text=True, check=True).stdout.strip() == "[]"
