"""Lists of the images of others, and manifests that are held against them."""

from pathlib import Path

import pytest

from kfp_hybrid.bundle.third_party import ThirdParty, pin, read, read_all, relocate
from kfp_hybrid.errors import UserError

MANIFESTS = Path(__file__).parents[4] / "manifests"
DIGEST = f"sha256:{'a' * 64}"
MYSQL = ThirdParty(name="docker.io/library/mysql", tag="8.4", digest=DIGEST)
LAUNCHER = ThirdParty(name="ghcr.io/kubeflow/kfp-launcher", tag="2.17.0", digest=DIGEST)
UNKNOWN = ThirdParty(name="docker.io/library/alpine", tag="3.23")
BUSYBOX = ThirdParty(name="ghcr.io/containerd/busybox", tag="latest")
KNOWN = [MYSQL, LAUNCHER, UNKNOWN, BUSYBOX]


@pytest.mark.parametrize("file", ["images.yaml", "kind/images.yaml"])
def test_the_lists_of_this_repository_are_lists(file):
    references = [image.reference for image in read(MANIFESTS / file)]
    assert references and len(set(references)) == len(references)


def test_in_a_site_an_image_has_the_same_name_without_its_host():
    assert LAUNCHER.path == "kubeflow/kfp-launcher:2.17.0"


@pytest.mark.parametrize(
    "content, message",
    [
        ("images: 3", "images: "),
        ("images: [{name: mysql, tag: '8'}]", "images.0.name"),
        ("images: [{name: docker.io/library/mysql, tag: '8', digest: sha256:abc}]", "images.0.digest"),
        ("images: [{name: docker.io/library/mysql}]", "images.0.tag"),
        ("images: [", "is not YAML"),
    ],
)
def test_another_file_is_refused_with_the_place(tmp_path, content, message):
    (tmp_path / "images.yaml").write_text(content)
    with pytest.raises(UserError, match=message):
        read(tmp_path / "images.yaml")


MANIFEST = """
    spec:
      containers:
        - image: mysql:8.4
        - name: a
          image: "docker.io/alpine:3.23"
          env:
            - name: V2_LAUNCHER_IMAGE
              value: ghcr.io/kubeflow/kfp-launcher:2.17.0
            - name: HOST
              value: seaweedfs.kubeflow:9000
            - name: URL
              value: http://ml-pipeline.kubeflow:8888/apis
          args:
            - --executor-image
            - ghcr.io/kubeflow/kfp-launcher:2.17.0
            - --namespace
      data:
        cacheImage: ghcr.io/containerd/busybox
"""


def test_digests_are_put_in_wherever_an_image_is_named():
    pinned = pin(MANIFEST, KNOWN)
    assert f"- image: mysql:8.4@{DIGEST}\n" in pinned
    assert f"value: ghcr.io/kubeflow/kfp-launcher:2.17.0@{DIGEST}\n" in pinned
    assert f"- ghcr.io/kubeflow/kfp-launcher:2.17.0@{DIGEST}\n" in pinned
    assert pinned.replace(f"@{DIGEST}", "") == MANIFEST


@pytest.mark.parametrize("missing", KNOWN)
def test_an_image_that_nobody_listed_is_refused_by_its_name(missing):
    with pytest.raises(
        UserError, match=rf"{missing.name.rpartition('/')[2]}(:{missing.tag})?, which is not in the list"
    ):
        pin(MANIFEST, [image for image in KNOWN if image is not missing])


def test_a_digest_that_a_manifest_has_is_kept_where_the_list_has_none():
    manifest = f"image: alpine:3.23@{DIGEST}\n"
    assert pin(manifest, KNOWN) == manifest


SITE = "registry.example.com:5000/ml"


def test_in_a_site_every_image_is_named_in_its_registry_and_nothing_else_changes():
    moved = relocate(MANIFEST, KNOWN, SITE)
    assert f"- image: {SITE}/library/mysql:8.4\n" in moved
    assert f'image: "{SITE}/library/alpine:3.23"\n' in moved
    assert f"value: {SITE}/kubeflow/kfp-launcher:2.17.0\n" in moved
    assert f"- {SITE}/kubeflow/kfp-launcher:2.17.0\n" in moved
    assert f"cacheImage: {SITE}/containerd/busybox:latest\n" in moved
    changed = [old for old, new in zip(MANIFEST.splitlines(), moved.splitlines(), strict=True) if old != new]
    assert len(changed) == 5


def test_a_digest_does_not_come_along_because_another_registry_gives_another():
    assert relocate(f"image: alpine:3.23@{DIGEST}", KNOWN, SITE) == f"image: {SITE}/library/alpine:3.23"


@pytest.fixture
def write_list(tmp_path):
    def write(name, tag="8.4", digest=""):
        file = tmp_path / name
        file.write_text(f"images: [{{name: docker.io/library/mysql, tag: '{tag}', digest: '{digest}'}}]")
        return file

    return write


def test_an_image_of_two_lists_is_one_and_its_digest_counts(write_list):
    for files in (("a", "b"), ("b", "a")):
        lists = [write_list(name, digest=DIGEST if name == "a" else "") for name in files]
        assert [(image.reference, image.digest) for image in read_all(lists)] == [(MYSQL.reference, DIGEST)]


def test_two_lists_with_two_digests_of_an_image_are_refused(write_list):
    lists = [write_list("a", digest=DIGEST), write_list("b", digest=f"sha256:{'b' * 64}")]
    with pytest.raises(UserError, match=r"b: docker.io/library/mysql:8.4 has another digest than in another list"):
        read_all(lists)
