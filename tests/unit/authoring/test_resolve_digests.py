"""Filling in digests: what the programs that know registries are asked, played by stubs, and what becomes of a list."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kfp_hybrid.bundle import third_party

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "scripts/resolve_digests.py"
STUB = """#!/bin/sh
echo "${0##*/} $*" >> "$CALLS"
for last; do :; done
case $last in *missing*) echo "MANIFEST_UNKNOWN: manifest unknown" >&2; exit 1 ;; esac
printf 'sha256:%s\\n' "$(printf %s "${last#docker://}" | sha256sum | cut -d' ' -f1)"
"""
CONTENT = """# What others have made.
images:
  - name: ghcr.io/one/image
    tag: "4.34"
    for: something
  - {name: quay.io/two/image, tag: v1.0, for: "another thing"}
  - {name: docker.io/library/three, tag: "3.23"}
"""


def digest(reference):
    return "sha256:" + hashlib.sha256(reference.encode()).hexdigest()


@pytest.fixture
def images(tmp_path):
    file = tmp_path / "images.yaml"
    file.write_text(CONTENT)
    return file


@pytest.fixture
def run(tmp_path):
    programs = tmp_path / "bin"
    programs.mkdir()

    def call(*arguments, tool="crane"):
        if tool:
            (programs / tool).write_text(STUB)
            (programs / tool).chmod(0o755)
        for name in ("sh", "sha256sum", "cut", "printf"):
            if not (programs / name).exists():
                (programs / name).symlink_to(f"/usr/bin/{name}")
        environ = {**os.environ, "PATH": str(programs), "CALLS": str(tmp_path / "calls")}
        return subprocess.run([sys.executable, SCRIPT, *arguments], env=environ, capture_output=True, text=True)

    return call


@pytest.mark.parametrize(
    ("tool", "call"),
    [("crane", "crane digest ghcr.io/one/image:4.34"),
     ("skopeo", "skopeo inspect --no-tags --format {{.Digest}} docker://ghcr.io/one/image:4.34"),
     ("docker", "docker buildx imagetools inspect --format {{.Manifest.Digest}} ghcr.io/one/image:4.34")],
)  # fmt: skip
def test_every_image_gets_the_digest_that_its_registry_gives(run, images, tmp_path, tool, call):
    done = run(images, tool=tool)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "calls").read_text().splitlines()[0] == call
    for image in third_party.read(images):
        assert image.digest == digest(image.reference)


def test_comments_order_and_everything_else_stay(run, images):
    run(images)
    lines = images.read_text().splitlines()
    added = [line for line in lines if line.strip().startswith("digest: ")]
    assert len(added) == 1
    without = [line.split(", digest:")[0].rstrip("}") for line in lines if line not in added]
    before = [line.split(", for: ")[0].rstrip("}") for line in CONTENT.splitlines()]
    assert [line.split(", for: ")[0] for line in without] == before


def test_doing_it_again_changes_nothing(run, images):
    run(images)
    once = images.read_text()
    assert run(images).returncode == 0
    assert run("--check", images).returncode == 0
    assert images.read_text() == once


def test_a_digest_that_the_registry_gives_no_longer_is_reported_and_stays(run, images):
    other = f"sha256:{'4f' * 32}"
    images.write_text(images.read_text().replace("tag: v1.0", f"tag: v1.0, digest: {other}"))
    done = run(images)
    assert done.returncode == 1
    assert f"quay.io/two/image:v1.0 is {digest('quay.io/two/image:v1.0')} now, not {other}" in done.stdout
    assert other in images.read_text()


def test_checking_writes_nothing(run, images):
    before = images.read_text()
    done = run("--check", images)
    assert done.returncode == 1
    assert done.stdout.count("has no digest") == 3
    assert images.read_text() == before


def test_a_list_is_left_alone_when_an_image_is_not_there(run, images):
    images.write_text(images.read_text().replace("three", "missing"))
    before = images.read_text()
    done = run(images)
    assert done.returncode == 1
    assert done.stderr == (
        "error: cannot ask for the digest of docker.io/library/missing:3.23 with crane: "
        "MANIFEST_UNKNOWN: manifest unknown\n"
    )
    assert images.read_text() == before


def test_without_a_program_to_ask_with_it_says_which_there_are(run, images):
    done = run(images, tool="")
    assert done.returncode == 1
    assert done.stderr == "error: there is no crane, no skopeo, no docker; install one of them to ask registries\n"


def test_the_lists_of_this_repository_can_be_completed(run, tmp_path):
    copies = []
    for name in ("images.yaml", "kind/images.yaml"):
        copies.append(tmp_path / name.replace("/", "-"))
        copies[-1].write_text((ROOT / "manifests" / name).read_text())
    done = run(*copies)
    assert done.returncode == 0, done.stdout + done.stderr
    for copy in copies:
        for image in third_party.read(copy):
            assert image.digest == digest(image.reference)
