"""SHA256SUMS: what is written is what is read, and nothing leads out of the folder."""

import shutil
import subprocess

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kfp_hybrid.bundle.checksums import files_below, parse, render, sha256
from kfp_hybrid.errors import UserError

DIGEST = "a" * 64
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
names = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="/\\"), min_size=1, max_size=12)
paths = (
    st.lists(names, min_size=1, max_size=4).map("/".join).filter(lambda path: not {".", ".."} & set(path.split("/")))
)


@given(st.dictionaries(paths, digests, min_size=1))
def test_what_is_written_is_what_is_read(checksums):
    assert parse(render(checksums), "SHA256SUMS") == checksums


@given(st.dictionaries(paths, digests, min_size=1), st.data())
def test_a_list_that_was_cut_off_is_refused_or_misses_whole_lines(checksums, data):
    text = render(checksums)
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    assume(not cut.endswith("\n"))
    with pytest.raises(UserError, match="truncated"):
        parse(cut, "SHA256SUMS")


@given(st.text())
def test_any_text_is_read_or_refused_in_one_line(text):
    try:
        checksums = parse(text, "SHA256SUMS")
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert render(checksums) and all(not path.startswith("/") for path in checksums)


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside", "images/../../outside", ".."])
def test_a_path_that_leads_out_of_the_folder_is_not_trusted(path):
    with pytest.raises(UserError, match=r"line 2: .* leads out of the folder"):
        parse(f"{DIGEST}  good\n{DIGEST}  {path}\n", "SHA256SUMS")
    with pytest.raises(UserError, match="leads out of the folder"):
        render({path: DIGEST})


@pytest.mark.parametrize("path", ["a//b", "./a", "a/", "a\\b", "a\tb", "a\x1b[1m", "a\rb", "a\u2028b"])
def test_a_path_that_is_not_plain_is_refused(path):
    with pytest.raises(UserError, match=r"is not a plain relative path|is not a sha256"):
        parse(f"{DIGEST}  {path}\n", "SHA256SUMS")


def test_a_file_that_is_there_twice_is_refused():
    with pytest.raises(UserError, match=r"line 2: a is there twice"):
        parse(f"{DIGEST}  a\n{'b' * 64}  a\n", "SHA256SUMS")


@pytest.mark.parametrize("line", ["", "a", f"{DIGEST} a", f"{DIGEST[1:]}  a", f"{DIGEST.upper()}  a", f"{DIGEST}  "])
def test_a_line_of_another_form_is_refused_by_its_number(line):
    with pytest.raises(UserError, match="SHA256SUMS, line 1: is not a sha256"):
        parse(f"{line}\n", "SHA256SUMS")


def test_sha256sum_reads_it_too(tmp_path):
    for name in ("a", "folder/ä b"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    sums = render({name: sha256(tmp_path / name) for name in files_below(tmp_path)})
    (tmp_path / "SHA256SUMS").write_text(sums, "utf-8")
    assert shutil.which("sha256sum")
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path, check=True, capture_output=True)


def test_links_are_refused(tmp_path):
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(UserError, match="link is a link"):
        files_below(tmp_path)
