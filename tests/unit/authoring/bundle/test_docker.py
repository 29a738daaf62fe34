"""What the docker client is asked for, and what is made of its answers."""

import pytest

from kfp_hybrid.bundle.docker import Docker, tags_in
from kfp_hybrid.errors import UserError

SERVING = "docker.io/tensorflow/serving:2.19.1"


def digest_of(docker):
    return Docker().digest(SERVING)


def test_an_image_is_saved_with_its_tag_and_loaded_where_there_is_none(docker, tmp_path):
    docker.have("ghcr.io/kfp-hybrid/deployment:1")
    Docker().save("ghcr.io/kfp-hybrid/deployment:1", tmp_path / "a.tar")
    assert tags_in(tmp_path / "a.tar") == ["ghcr.io/kfp-hybrid/deployment:1"]
    docker.become_empty()
    Docker().load(tmp_path / "a.tar")
    Docker().push("ghcr.io/kfp-hybrid/deployment:1", "site:5000/kfp-hybrid/deployment:1")
    assert docker.read("pushed.json") == {"site:5000/kfp-hybrid/deployment:1": "content"}


def test_a_truncated_archive_is_not_taken_for_an_image(docker, tmp_path):
    docker.have("example.com/a:1")
    docker.will("save-truncates")
    with pytest.raises(UserError, match=r"wrote of example.com/a:1 does not have it"):
        Docker().save("example.com/a:1", tmp_path / "a.tar")


def test_an_image_that_cannot_be_had_is_named(docker):
    with pytest.raises(UserError, match=r"cannot pull docker.io/tensorflow/serving:2.19.1: .*manifest unknown"):
        Docker().pull(SERVING)
    assert len(docker.calls("pull")) == 1  # asking again would not help


def test_a_registry_that_is_busy_is_asked_again_and_the_log_says_so(docker, caplog):
    docker.offer(SERVING)
    docker.will("registry-busy")
    Docker().pull(SERVING)
    assert len(docker.calls("pull")) == 2
    assert f"pull {SERVING} failed (503 service)" in caplog.text


def test_with_a_digest_exactly_that_image_is_pulled_and_gets_the_tag(docker):
    docker.offer(SERVING, "as listed")
    Docker().pull(SERVING)
    digest = digest_of(docker)
    docker.become_empty()
    docker.offer(SERVING, "as listed")
    Docker().pull(SERVING, digest)
    assert docker.calls("pull") == [f"pull docker.io/tensorflow/serving@{digest}"]
    assert digest_of(docker) == digest


def test_an_image_that_changed_under_its_tag_is_not_taken(docker):
    docker.offer(SERVING, "as listed")
    Docker().pull(SERVING)
    digest = digest_of(docker)
    docker.become_empty()
    docker.offer(SERVING, "somebody pushed another")
    with pytest.raises(UserError, match="manifest unknown"):
        Docker().pull(SERVING, digest)


def test_an_image_that_was_built_here_has_no_digest(docker):
    docker.have("ghcr.io/kfp-hybrid/deployment:1")
    assert Docker().digest("ghcr.io/kfp-hybrid/deployment:1") == ""


def test_without_a_client_the_message_says_how_to_get_one(monkeypatch):
    monkeypatch.setenv("DOCKER", "no-such-client")
    with pytest.raises(UserError, match="there is no no-such-client; install Docker"):
        Docker()
