"""Lists of the images of others, and manifests that are held against them."""

from pathlib import Path

import pytest

from kfp_hybrid.bundle.third_party import ThirdParty, pin, read
from kfp_hybrid.errors import UserError

MANIFESTS = Path(__file__).parents[4] / "manifests"
DIGEST = f"sha256:{'a' * 64}"
MYSQL = ThirdParty(name="docker.io/library/mysql", tag="8.4", digest=DIGEST)
LAUNCHER = ThirdParty(name="ghcr.io/kubeflow/kfp-launcher", tag="2.17.0", digest=DIGEST)
UNKNOWN = ThirdParty(name="docker.io/library/alpine", tag="3.23")


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
"""


def test_digests_are_put_in_wherever_an_image_is_named():
    pinned = pin(MANIFEST, [MYSQL, LAUNCHER, UNKNOWN])
    assert f"- image: mysql:8.4@{DIGEST}\n" in pinned
    assert f"value: ghcr.io/kubeflow/kfp-launcher:2.17.0@{DIGEST}\n" in pinned
    assert f"- ghcr.io/kubeflow/kfp-launcher:2.17.0@{DIGEST}\n" in pinned
    assert pinned.replace(f"@{DIGEST}", "") == MANIFEST


@pytest.mark.parametrize("missing", [MYSQL, LAUNCHER, UNKNOWN])
def test_an_image_that_nobody_listed_is_refused_by_its_name(missing):
    with pytest.raises(UserError, match=f"{missing.reference.rpartition('/')[2]}, which is not in the list"):
        pin(MANIFEST, [image for image in (MYSQL, LAUNCHER, UNKNOWN) if image is not missing])
