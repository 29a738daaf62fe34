import errno
import json
import os
import socket
import stat
import types
from pathlib import Path

import pytest

from kfp_hybrid.components.deployment.push_model import publisher
from kfp_hybrid.components.deployment.push_model.publisher import (
    NotBlessedError,
    latest_version,
    list_versions,
    rollback,
)
from kfp_hybrid.components.deployment.push_model.push import push
from kfp_hybrid.step import StepError


def publish(destination, **options):
    return publisher.publish(str(destination), **{"blessed": True, "reason": "AUC 0.8 is above 0.7", **options})


def artifact(path: str = "", **metadata):
    return types.SimpleNamespace(path=path, uri=f"s3://bucket{path}", metadata=metadata)


def push_with(tmp_path, **options):
    pushed = artifact(str(tmp_path / "run" / "pushed"))
    defaults = {
        "model": None, "bundle": None, "destination": "", "blessed": True, "reason": "good", "force": False,
        "keep": 0, "rollback_to": 0, "fail_if_refused": False, "lock_timeout": 5,
    }  # fmt: skip
    return push(pushed=pushed, **{**defaults, **options}), pushed


# Layout


def test_the_first_version_is_1_and_holds_the_files_of_the_saved_model_directly(tmp_path, make_model, consistent, tidy):
    model = make_model()
    publication = publish(tmp_path / "served", model=model)
    assert (publication.version.number, publication.copied) == (1, True)
    assert (tmp_path / "served/1/saved_model.pb").read_bytes() == b"graph"
    assert (tmp_path / "served/1/variables/variables.index").exists()
    assert (tmp_path / "served/LATEST").read_text() == "1\n"
    assert consistent(tmp_path / "served") == [1]
    tidy(tmp_path / "served")


def test_the_edge_bundle_goes_into_its_own_folder_of_the_version(tmp_path, make_model, make_bundle, consistent):
    publish(tmp_path / "served", model=make_model(), bundle=make_bundle())
    assert (tmp_path / "served/1/edge/model.tflite").read_bytes() == b"flatbuffer"
    assert consistent(tmp_path / "served") == [1]


def test_an_edge_bundle_is_published_alone(tmp_path, make_bundle):
    publish(tmp_path / "served", bundle=make_bundle())
    assert sorted(path.name for path in (tmp_path / "served/1").iterdir()) == ["MANIFEST.json", "edge"]


def test_the_manifest_says_what_was_published_why_and_from_where(tmp_path, make_model):
    publish(tmp_path / "served", model=make_model(), source={"model": {"uri": "gs://b/m", "metadata": {"auc": 0.8}}})
    manifest = json.loads((tmp_path / "served/1/MANIFEST.json").read_text())
    assert manifest["format"] == "kfp-hybrid/published-model"
    assert manifest["version"] == 1
    assert manifest["created"].endswith("+00:00")
    assert manifest["blessing"] == {"blessed": True, "forced": False, "reason": "AUC 0.8 is above 0.7"}
    assert manifest["source"] == {"model": {"uri": "gs://b/m", "metadata": {"auc": 0.8}}}
    assert len(manifest["digest"]) == 64
    assert manifest["files"]["saved_model.pb"]["bytes"] == 5


def test_other_users_may_read_what_is_published_as_the_umask_allows(tmp_path, make_model):
    previous = os.umask(0o022)
    try:
        publish(tmp_path / "served", model=make_model())
    finally:
        os.umask(previous)
    folders = [tmp_path / "served/1", tmp_path / "served/1/variables"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o755}
    files = [tmp_path / "served/1/saved_model.pb", tmp_path / "served/1/MANIFEST.json", tmp_path / "served/LATEST"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o644}


def test_unicode_and_undecodable_names_are_published(tmp_path, make_model, consistent):
    model = Path(make_model())
    (model / "assets").mkdir()
    (model / "assets/wörter 語.txt").write_text("é")
    Path(os.fsdecode(os.fsencode(model) + b"/assets/\xff.bin")).write_bytes(b"x")
    destination = tmp_path / "modèles 模型"
    assert publish(destination, model=str(model)).copied
    assert not publish(destination, model=str(model)).copied
    assert consistent(destination) == [1]


# Numbers and idempotence


def test_another_content_is_the_next_version(tmp_path, make_model, consistent):
    for content in ("a", "b", "c"):
        publish(tmp_path, model=make_model(content))
    assert consistent(tmp_path) == [1, 2, 3]
    assert latest_version(str(tmp_path)) == 3


def test_the_same_content_is_the_same_version_and_nothing_is_written(tmp_path, make_model):
    publish(tmp_path / "served", model=make_model())

    def times():
        paths = (tmp_path / "served").rglob("*")
        return {path: path.stat().st_mtime_ns for path in paths if path.name != ".lock"}

    before = times()
    publication = publish(tmp_path / "served", model=make_model())
    assert (publication.version.number, publication.copied) == (1, False)
    assert times() == before


def test_a_model_with_another_bundle_is_another_version(tmp_path, make_model, make_bundle):
    numbers = [
        publish(tmp_path / "served", model=make_model()).version.number,
        publish(tmp_path / "served", model=make_model(), bundle=make_bundle("v1")).version.number,
        publish(tmp_path / "served", model=make_model(), bundle=make_bundle("v2")).version.number,
        publish(tmp_path / "served", model=make_model(), bundle=make_bundle("v1")).version.number,
    ]
    assert numbers == [1, 2, 3, 2]


def test_pushing_an_old_content_again_points_latest_to_its_version(tmp_path, make_model, consistent):
    for content in ("a", "b"):
        publish(tmp_path, model=make_model(content))
    publication = publish(tmp_path, model=make_model("a"))
    assert (publication.version.number, publication.copied) == (1, False)
    assert (tmp_path / "LATEST").read_text() == "1\n"
    assert consistent(tmp_path) == [1, 2]


def test_a_damaged_version_is_not_taken_for_the_same_content(tmp_path, make_model):
    publish(tmp_path / "served", model=make_model())
    (tmp_path / "served/1/saved_model.pb").write_bytes(b"grapf")
    publication = publish(tmp_path / "served", model=make_model())
    assert (publication.version.number, publication.copied) == (2, True)


def test_versions_made_by_others_count_but_are_neither_listed_nor_deleted(tmp_path, make_model):
    foreign = tmp_path / "served/1700000000"
    foreign.mkdir(parents=True)
    (foreign / "saved_model.pb").write_bytes(b"theirs")
    numbers = [publish(tmp_path / "served", model=make_model(c), keep=1).version.number for c in ("a", "b")]
    assert numbers == [1700000001, 1700000002]
    assert [version.number for version in list_versions(str(tmp_path / "served"))] == [1700000002]
    assert (foreign / "saved_model.pb").read_bytes() == b"theirs"


def test_a_number_that_latest_still_names_is_not_used_again(tmp_path, make_model):
    (tmp_path / "served").mkdir()
    (tmp_path / "served/LATEST").write_text("9\n")
    assert publish(tmp_path / "served", model=make_model()).version.number == 10


def test_a_latest_that_is_no_number_is_replaced(tmp_path, make_model):
    publish(tmp_path / "served", model=make_model())
    (tmp_path / "served/LATEST").write_text("latest")
    publish(tmp_path / "served", model=make_model())
    assert (tmp_path / "served/LATEST").read_text() == "1\n"


# Keeping


def test_the_oldest_versions_are_deleted_and_the_newest_kept(tmp_path, make_model, consistent, tidy):
    for content in "abcde":
        publish(tmp_path, model=make_model(content), keep=2)
    assert consistent(tmp_path) == [4, 5]
    tidy(tmp_path)


def test_versions_come_and_go_on_a_file_system_that_renames_no_directories(
    tmp_path, make_model, consistent, tidy, monkeypatch
):
    rename = os.rename

    def refuse(source, target, **options):  # as Cloud Storage FUSE does
        if os.path.isdir(source):
            raise OSError(errno.EMFILE, "Too many open files")
        rename(source, target, **options)

    monkeypatch.setattr(os, "rename", refuse)
    for content in "abc":
        publish(tmp_path / "served", model=make_model(content), keep=2)
    assert consistent(tmp_path / "served") == [2, 3]
    tidy(tmp_path / "served")


def test_zero_keeps_every_version(tmp_path, make_model, consistent):
    for content in "abcde":
        publish(tmp_path, model=make_model(content), keep=0)
    assert consistent(tmp_path) == [1, 2, 3, 4, 5]


def test_the_version_in_use_and_the_highest_number_survive_any_keep(tmp_path, make_model, consistent):
    for content in "abcd":
        publish(tmp_path, model=make_model(content))
    publish(tmp_path, model=make_model("b"), keep=1)
    assert consistent(tmp_path) == [2, 4]
    assert publish(tmp_path, model=make_model("e"), keep=1).version.number == 5
    assert consistent(tmp_path) == [5]


# Gate


def test_a_model_that_is_not_blessed_is_refused_with_the_reason(tmp_path, make_model):
    with pytest.raises(NotBlessedError, match=r"the model is not blessed: AUC of carrier=HA is 0.61, below 0.7"):
        publish(tmp_path / "served", model=make_model(), blessed=False, reason="AUC of carrier=HA is 0.61, below 0.7")
    assert not (tmp_path / "served").exists()


def test_force_publishes_it_and_the_manifest_says_so(tmp_path, make_model, caplog):
    version = publish(tmp_path / "served", model=make_model(), blessed=False, reason="too slow", force=True).version
    assert (version.blessed, version.reason) == (False, "too slow")
    manifest = json.loads((tmp_path / "served/1/MANIFEST.json").read_text())
    assert manifest["blessing"] == {"blessed": False, "forced": True, "reason": "too slow"}
    assert "not blessed, because force is set: too slow" in caplog.text


# Rollback and listing


def test_rollback_points_latest_to_an_earlier_version(tmp_path, make_model, consistent, tidy):
    for content in "abc":
        publish(tmp_path, model=make_model(content))
    assert rollback(str(tmp_path), 1).number == 1
    assert latest_version(str(tmp_path)) == 1
    assert consistent(tmp_path) == [1, 2, 3]
    tidy(tmp_path)


def test_rollback_to_a_version_that_is_not_there_names_those_that_are(tmp_path, make_model):
    for content in "ab":
        publish(tmp_path, model=make_model(content))
    with pytest.raises(StepError, match=r"there is no version 7 in .*; give one of: 1, 2"):
        rollback(str(tmp_path), 7)
    assert latest_version(str(tmp_path)) == 2


@pytest.mark.parametrize(
    ("damage", "clause"),
    [
        (lambda version: (version / "saved_model.pb").write_bytes(b"grapf"), "saved_model.pb has other bytes"),
        (lambda version: (version / "saved_model.pb").unlink(), "saved_model.pb is missing"),
        (lambda version: (version / "variables/more").write_bytes(b""), "variables/more was added"),
        (lambda version: (version / "link").symlink_to("saved_model.pb"), "link is a symbolic link"),
    ],
)
def test_rollback_refuses_a_damaged_version_and_names_the_file(tmp_path, make_model, damage, clause):
    for content in "ab":
        publish(tmp_path, model=make_model(content))
    damage(tmp_path / "1")
    with pytest.raises(StepError, match=clause):
        rollback(str(tmp_path), 1)
    assert latest_version(str(tmp_path)) == 2


def test_rollback_refuses_a_version_whose_manifest_was_altered_with_its_files(tmp_path, make_model):
    for content in "ab":
        publish(tmp_path, model=make_model(content))
    manifest = json.loads((tmp_path / "1/MANIFEST.json").read_text())
    (tmp_path / "1/saved_model.pb").unlink()
    del manifest["files"]["saved_model.pb"]
    (tmp_path / "1/MANIFEST.json").write_text(json.dumps(manifest))
    with pytest.raises(StepError, match=r"version 1 .* has an altered manifest"):
        rollback(str(tmp_path), 1)


def test_rollback_does_not_make_a_destination(tmp_path):
    with pytest.raises(StepError, match="served is not a directory"):
        rollback(str(tmp_path / "served"), 1)
    assert not (tmp_path / "served").exists()


def test_versions_are_listed_oldest_first_with_their_sizes(tmp_path, make_model):
    for content in "abcdefghijkl":
        publish(tmp_path / "served", model=make_model(content))
    versions = list_versions(str(tmp_path / "served"))
    assert [version.number for version in versions] == list(range(1, 13))
    assert versions[0].bytes == len(b"graph" + b"index" + b"a" * 100 + b"{}")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "other", "format_version": 1}', '{"format": 1'])
def test_a_version_with_an_unreadable_manifest_is_left_out_with_a_warning(tmp_path, make_model, caplog, text):
    publish(tmp_path / "served", model=make_model())
    (tmp_path / "served/1/MANIFEST.json").write_text(text)
    assert list_versions(str(tmp_path / "served")) == []
    assert "leaving out" in caplog.text
    assert publish(tmp_path / "served", model=make_model()).version.number == 2


def test_a_copied_version_folder_is_not_taken_for_a_version(tmp_path, make_model):
    publish(tmp_path / "served", model=make_model())
    os.rename(tmp_path / "served/1", tmp_path / "served/5")
    assert list_versions(str(tmp_path / "served")) == []


def test_nothing_is_listed_where_nothing_was_published(tmp_path):
    assert list_versions(str(tmp_path)) == []
    assert latest_version(str(tmp_path)) is None


# Bad input


def test_an_unknown_store_is_refused(make_model):
    with pytest.raises(StepError, match="cannot read hdfs://"):
        publisher.publish("hdfs://cluster/m", model=make_model(), blessed=True)


def test_a_destination_that_is_a_file_is_refused(tmp_path, make_model):
    (tmp_path / "served").write_text("mine")
    for destination in (tmp_path / "served", tmp_path / "served/below"):
        with pytest.raises(StepError, match="a file is in the way, give a directory"):
            publish(destination, model=make_model())
    assert (tmp_path / "served").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing to publish; give a model, an edge bundle or both"),
        ({"model": "/no/such/model"}, "the model /no/such/model is not a directory"),
        ({"bundle": "/no/such/bundle"}, "the edge bundle /no/such/bundle is not a directory"),
        ({"model": "/no/such/model", "keep": -1}, "keep is -1; give the number of versions to keep, or 0"),
    ],
)
def test_a_bad_parameter_is_refused_before_anything_is_made(tmp_path, options, message):
    with pytest.raises(StepError, match=message):
        publish(tmp_path / "served", **options)
    assert not (tmp_path / "served").exists()


def test_an_empty_destination_is_refused(make_model):
    with pytest.raises(StepError, match="the destination is empty; give a directory"):
        publish(" ", model=make_model())


def test_a_folder_that_is_no_model_is_refused(tmp_path, make_bundle):
    (tmp_path / "empty").mkdir()
    with pytest.raises(StepError, match=r"empty has no saved_model\.pb"):
        publish(tmp_path / "served", model=str(tmp_path / "empty"))
    with pytest.raises(StepError, match=r"empty has no model\.tflite"):
        publish(tmp_path / "served", bundle=str(tmp_path / "empty"))


@pytest.mark.parametrize("name", ["edge/model.tflite", "MANIFEST.json"])
def test_a_model_that_uses_our_own_names_is_refused(tmp_path, make_model, name):
    with pytest.raises(StepError, match=f"has an entry named {name.partition('/')[0]}"):
        publish(tmp_path / "served", model=make_model(**{name: b"theirs"}))


@pytest.mark.parametrize("where", [".", "served", "variables/served"])
def test_a_destination_inside_the_model_is_refused(make_model, where):
    model = make_model()
    with pytest.raises(StepError, match="lies inside the model"):
        publish(Path(model) / where, model=model)


def _link_to_file(model):
    (model / "variables/link").symlink_to(model / "saved_model.pb")


def _link_to_folder(model):
    (model / "link").symlink_to(model / "variables")


def _pipe(model):
    os.mkfifo(model / "pipe")


def _socket(model):
    listener = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(model)  # the address of a socket is limited to 108 bytes
    try:
        listener.bind("socket")
    finally:
        os.chdir(here)
        listener.close()


@pytest.mark.parametrize("add", [_link_to_file, _link_to_folder, _pipe, _socket])
def test_links_and_special_files_are_refused(tmp_path, make_model, add):
    model = make_model()
    add(Path(model))
    with pytest.raises(StepError, match=r"is a symbolic link|is neither a file nor a folder"):
        publish(tmp_path / "served", model=model)
    assert not (tmp_path / "served").exists()


def test_a_link_to_the_whole_model_is_followed(tmp_path, make_model):
    (tmp_path / "current").symlink_to(make_model())
    assert publish(tmp_path / "served", model=str(tmp_path / "current")).copied


# The artifacts of the step


def test_the_artifact_points_to_the_published_version(tmp_path, make_model):
    model = artifact(make_model(), auc=0.8)
    (version, published), pushed = push_with(tmp_path, model=model, destination=str(tmp_path / "served"))
    assert (version, published) == (1, True)
    assert pushed.metadata == {
        "saved_model": True,
        "edge_bundle": False,
        "version": 1,
        "digest": list_versions(str(tmp_path / "served"))[0].digest,
        "pushed": True,
        "outcome": "published",
        "destination": str(tmp_path / "served"),
    }
    assert json.loads((tmp_path / "run/pushed/pushed.json").read_text()) == pushed.metadata
    manifest = json.loads((tmp_path / "served/1/MANIFEST.json").read_text())
    assert manifest["source"] == {"model": {"uri": model.uri, "metadata": {"auc": 0.8}}}


def test_the_artifact_says_whether_there_is_an_edge_bundle_by_which_a_server_is_chosen(
    tmp_path, make_model, make_bundle
):
    _, pushed = push_with(tmp_path, model=artifact(make_model()), bundle=artifact(make_bundle()))
    assert (pushed.metadata["saved_model"], pushed.metadata["edge_bundle"]) == (True, True)
    _, pushed = push_with(tmp_path / "alone", bundle=artifact(make_bundle()))
    assert (pushed.metadata["saved_model"], pushed.metadata["edge_bundle"]) == (False, True)


def test_pushing_again_is_unchanged_but_published(tmp_path, make_model):
    for outcome in ("published", "unchanged"):
        (version, published), pushed = push_with(
            tmp_path, model=artifact(make_model()), destination=str(tmp_path / "served")
        )
        assert (version, published, pushed.metadata["outcome"]) == (1, True, outcome)


def test_without_a_destination_the_model_lies_in_the_artifact(tmp_path, make_model, make_bundle, consistent):
    outputs, pushed = push_with(tmp_path, model=artifact(make_model()), bundle=artifact(make_bundle()))
    assert outputs == (1, True)
    assert consistent(Path(pushed.path)) == [1]
    assert pushed.metadata["destination"] == pushed.uri
    pointer = json.loads((Path(pushed.path) / "pushed.json").read_text())
    assert (Path(pushed.path) / pointer["destination"] / "1/saved_model.pb").exists()


def test_a_refusal_pushes_nothing_and_says_why(tmp_path, make_model, caplog):
    refused = {"model": artifact(make_model()), "destination": str(tmp_path / "served"), "blessed": False}
    outputs, pushed = push_with(tmp_path, **refused, reason="AUC 0.6")
    assert outputs == (0, False)
    assert (pushed.metadata["pushed"], pushed.metadata["outcome"]) == (False, "refused")
    assert "nothing was pushed: the model is not blessed: AUC 0.6" in caplog.text
    assert not (tmp_path / "served").exists()
    with pytest.raises(StepError, match=r"not blessed: AUC 0.6"):
        push_with(tmp_path, **refused, reason="AUC 0.6", fail_if_refused=True)


def test_a_rollback_needs_no_model_and_no_blessing(tmp_path, make_model):
    for content in "ab":
        publish(tmp_path / "served", model=make_model(content))
    outputs, pushed = push_with(tmp_path, destination=str(tmp_path / "served"), rollback_to=1, blessed=False)
    assert outputs == (1, False)
    assert (pushed.metadata["version"], pushed.metadata["outcome"]) == (1, "rolled back")
    assert latest_version(str(tmp_path / "served")) == 1


@pytest.mark.parametrize("options", [{"rollback_to": -1, "destination": "/tmp"}, {"rollback_to": 1}])
def test_a_rollback_to_nowhere_is_refused(tmp_path, options):
    with pytest.raises(StepError, match=r"rollback_to is .*; give an existing version"):
        push_with(tmp_path, **options)
