"""Registration, against an installation on this machine."""

import pytest

from kfp_hybrid.errors import UserError
from kfp_hybrid.package import Package
from kfp_hybrid.targets.runs import Registration

UPLOAD = "POST /apis/v2beta1/pipelines/upload_version"


def test_the_first_registration_makes_the_pipeline_and_a_version_of_that_name(installation, target, hello):
    registered = target.register(hello, version="1.0")

    (pipeline,) = installation.pipelines.values()
    (version,) = installation.versions.values()
    assert pipeline["display_name"] == "hello"
    assert (version["pipeline_id"], version["display_name"]) == (pipeline["pipeline_id"], "1.0")
    assert version["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]
    page = f"{installation.url}/#/pipelines/details/{pipeline['pipeline_id']}/version/{version['pipeline_version_id']}"
    assert registered == Registration("hello", "1.0", page, new=True)


def test_the_same_package_again_changes_nothing(installation, target, hello):
    first = target.register(hello, version="1.0")
    again = target.register(hello, version="2.0")
    assert (again.version, again.url, again.new) == ("1.0", first.url, False)
    assert len(installation.versions) == 1


@pytest.fixture
def changed(hello):
    text = hello.text.replace("Put two texts together", "Join two texts")
    assert text != hello.text
    return Package(hello.spec, text)


@pytest.fixture
def on_other_nodes(installation, open_target, tmp_path):
    from kfp_hybrid.sources import compile_pipeline

    target = open_target(installation.url, node_selector={"pool": "pipelines"})
    compile_pipeline("hello", target, tmp_path / "other.yaml")
    return Package.load(tmp_path / "other.yaml")


@pytest.mark.parametrize("other", ["changed", "on_other_nodes"])
def test_other_content_is_another_version(installation, target, hello, other, request):
    target.register(hello, version="1.0")
    registered = target.register(request.getfixturevalue(other), version="1.1")
    assert (registered.version, registered.new) == ("1.1", True)
    assert len(installation.pipelines) == 1
    assert [version["display_name"] for version in installation.versions.values()] == ["1.0", "1.1"]


def test_other_content_does_not_replace_a_version(installation, target, hello, changed):
    target.register(hello, version="1.0")
    with pytest.raises(UserError, match=r"pipeline hello has a version 1.0 with other content; .*--version"):
        target.register(changed, version="1.0")
    assert len(installation.versions) == 1


def test_older_versions_are_looked_at_too(installation, target, hello, changed, monkeypatch):
    from kfp_hybrid.targets.kubeflow import catalogue

    monkeypatch.setattr(catalogue, "PAGE_SIZE", 1)
    target.register(hello, version="1.0")
    target.register(changed, version="1.1")
    assert not target.register(hello, version="1.2").new


@pytest.mark.parametrize("pattern", [UPLOAD, "POST /apis/v2beta1/pipelines"])
@pytest.mark.parametrize("how", [{"cut": True}, {"status": 504}], ids=["reset", "gateway error"])
def test_what_was_made_although_its_answer_is_lost_is_not_made_twice(installation, target, hello, pattern, how):
    installation.fail(pattern, after=True, **how)
    assert target.register(hello, version="1.0").version == "1.0"
    assert (len(installation.pipelines), len(installation.versions)) == (1, 1)
    assert len(installation.sent(pattern)) == 1


def test_what_somebody_else_made_in_the_meantime_is_a_conflict(installation, target, hello):
    installation.fail(UPLOAD, status=409, body={"error_message": "Failed to create a pipeline version"})
    with pytest.raises(UserError, match=r"cannot upload version 1.0 of hello: .* 409 .*: Failed to create a pipeline"):
        target.register(hello, version="1.0")
