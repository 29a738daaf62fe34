"""Directories appear whole or not at all, also on file systems that rename no directories."""

import errno
import os
import shutil

import pytest

from kfp_hybrid import publishing

FILES = {"MANIFEST.json": "{}", "data.bin": "content", "variables/part": "more", "variables/MANIFEST.json": "inner"}


def write(folder, files=FILES):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def read(folder):
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(params=["renames", errno.EMFILE, errno.ENOSYS], ids=["disk", "Cloud Storage FUSE", "an older one"])
def file_system(request, monkeypatch):
    """A disk; or one that refuses to rename directories."""
    rename = os.rename

    def refuse(source, target, **options):
        if os.path.isdir(source):
            raise OSError(request.param, os.strerror(request.param))
        rename(source, target, **options)

    if request.param != "renames":
        monkeypatch.setattr(os, "rename", refuse)
    return request.param


def test_a_directory_is_published(tmp_path, file_system):
    with publishing.publishing(tmp_path / "model") as unfinished:
        write(unfinished)
        assert not (tmp_path / "model").exists()
    assert read(tmp_path) == {f"model/{name}": content for name, content in FILES.items()}


def test_an_older_one_is_replaced_whole(tmp_path, file_system):
    write(tmp_path / "model", {"old": "content"})
    with publishing.publishing(tmp_path / "model") as unfinished:
        write(unfinished)
    assert read(tmp_path) == {f"model/{name}": content for name, content in FILES.items()}


def test_nothing_is_published_when_the_work_fails(tmp_path, file_system):
    write(tmp_path / "model", {"old": "content"})
    with pytest.raises(ZeroDivisionError), publishing.publishing(tmp_path / "model") as unfinished:
        write(unfinished)
        raise ZeroDivisionError
    assert read(tmp_path) == {"model/old": "content"}


def test_a_copy_that_fails_leaves_nothing_that_counts(tmp_path, monkeypatch):
    def refuse(source, target, **options):
        raise OSError(errno.EMFILE, "Too many open files")

    copied, copyfile = [], shutil.copyfile

    def copy(source, target):
        copied.append(str(target))
        if len(copied) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        copyfile(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    monkeypatch.setattr(shutil, "copyfile", copy)
    write(tmp_path / "unfinished")
    with pytest.raises(OSError, match="No space left"):
        publishing.replace(tmp_path / "unfinished", tmp_path / "model", last="MANIFEST.json")
    assert copied[-1] == str(tmp_path / "model" / "MANIFEST.json")  # after all others
    assert not (tmp_path / "model").exists()


def test_another_error_is_not_taken_for_a_file_system_without_renames(tmp_path, monkeypatch):
    def refuse(source, target, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "rename", refuse)
    write(tmp_path / "unfinished")
    with pytest.raises(PermissionError):
        publishing.replace(tmp_path / "unfinished", tmp_path / "model")
