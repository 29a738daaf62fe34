"""The same with a real Docker and a registry on this machine that checks digests; skipped where no daemon answers."""

import importlib.util
import io
import subprocess
import tarfile
import uuid
from pathlib import Path

import pytest

from kfp_hybrid.bundle import index
from kfp_hybrid.bundle.docker import Docker, tags_in
from kfp_hybrid.bundle.index import Image, Index
from kfp_hybrid.bundle.load import load
from kfp_hybrid.bundle.writer import writing
from kfp_hybrid.errors import UserError

SERVERS = Path(__file__).parents[3] / "servers"


def command(*arguments, **options):
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, **options)


@pytest.fixture(scope="module", autouse=True)
def daemon():
    try:
        answers = command("version").returncode == 0
    except FileNotFoundError:
        answers = False
    if not answers:
        pytest.skip("no Docker daemon answers")


@pytest.fixture
def registry():
    spec = importlib.util.spec_from_file_location("oci_registry", SERVERS / "oci_registry.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.Registry() as running:
        yield running


@pytest.fixture
def image(registry):
    """A small image of one file, and afterwards no trace of it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo("file")
        data = uuid.uuid4().bytes
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    reference = f"kfp-hybrid.test/bundle-{uuid.uuid4().hex[:8]}:1"
    subprocess.run(["docker", "import", "-", reference], input=stream.getvalue(), capture_output=True, check=True)
    yield reference
    path = reference.partition("/")[2]
    command("rmi", "--force", reference, f"{registry.address}/{path}", f"{registry.address}/site/{path}")


def test_an_image_goes_into_an_empty_docker_and_from_there_into_the_registry_of_the_site(image, registry, tmp_path):
    docker = Docker()
    before = docker.identity(image)
    path = image.partition("/")[2]
    content = Index(version="1", registry=f"{registry.address}/site", python="3.11", platform="linux-x86_64")
    with writing(tmp_path / "bundle", content, print) as writer:
        writer.add("images/a.tar", before, lambda to: docker.save(image, to))
        content.images.append(Image(file="images/a.tar", reference=image, path=path))
    assert tags_in(tmp_path / "bundle/images/a.tar") == [image]
    assert command("rmi", image).returncode == 0
    assert docker.identity(image) is None

    load(tmp_path / "bundle", content.registry, None, print)
    assert registry.tags == {f"site/{path}"}
    assert docker.identity(image) == before
    assert (tmp_path / "bundle" / index.NAME).exists()


def test_an_image_of_a_registry_is_pulled_by_its_digest_and_by_no_other(image, registry):
    docker = Docker()
    before = docker.identity(image)
    reference = f"{registry.address}/{image.partition('/')[2]}"
    docker.push(image, reference)
    digest = docker.digest(reference)
    command("rmi", image, reference)
    assert docker.identity(reference) is None
    with pytest.raises(UserError, match=r"manifest unknown|not found"):
        docker.pull(reference, f"sha256:{'0' * 64}")
    docker.pull(reference, digest)
    assert docker.identity(reference) == before
    assert docker.digest(reference) == digest


def test_an_image_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot save the image kfp-hybrid.test/none:1"):
        Docker().save("kfp-hybrid.test/none:1", tmp_path / "a.tar")
