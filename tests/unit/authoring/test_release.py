"""The compiled packages that users upload: the same source gives the same bytes, and a stale one is found."""

import os
import shutil
import subprocess
import sys

import pytest

from kfp_hybrid import release
from kfp_hybrid.package import Package
from kfp_hybrid.sources import pipeline_names

TARGETS = ["local", "onprem", "vertex"]


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compiled")
    release.write(folder)
    return folder


def test_every_pipeline_is_released_for_every_target(released):
    files = {str(file.relative_to(released)) for file in released.rglob("*.yaml")}
    assert files == {f"{target}/{pipeline}.yaml" for target in TARGETS for pipeline in pipeline_names()}


def test_the_same_source_gives_the_same_bytes(released):
    assert release.stale(released) == []


@pytest.mark.parametrize("hash_seed", ["1", "2", "3"])
def test_another_process_gives_the_same_bytes(released, tmp_path, hash_seed):
    """Maps of protobuf have another order in each process."""
    code = (
        "import sys, pathlib; from kfp_hybrid.sources import compile_pipeline; "
        "from kfp_hybrid.targets.local import LocalTarget; "
        "compile_pipeline('train_without_code', LocalTarget(pathlib.Path('cache')), pathlib.Path(sys.argv[1]))"
    )
    package = tmp_path / "package.yaml"
    environ = {**os.environ, "PYTHONHASHSEED": hash_seed}
    subprocess.run([sys.executable, "-c", code, package], check=True, env=environ)
    assert package.read_text() == (released / "local" / "train_without_code.yaml").read_text()


def test_a_changed_a_missing_and_a_foreign_file_are_stale(released, tmp_path):
    copy = tmp_path / "compiled"
    shutil.copytree(released, copy)
    (copy / "vertex/hello.yaml").open("a").write("# changed\n")
    (copy / "local/hello.yaml").unlink()
    (copy / "onprem/old.yaml").touch()
    assert release.stale(copy) == ["local/hello.yaml", "onprem/old.yaml", "vertex/hello.yaml"]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("pipeline", pipeline_names())
def test_the_run_form_needs_no_other_documentation(released, target, pipeline):
    package = Package.load(released / target / f"{pipeline}.yaml")
    assert package.spec.pipeline_info.display_name and package.spec.pipeline_info.description
    assert all(parameter.description for parameter in package.parameters.values())


def test_the_index_describes_every_parameter(released):
    index = (released / release.INDEX).read_text()
    package = Package.load(released / "local" / "train_and_publish.yaml")
    assert all(f"| `{name}` | " in index for name in package.parameters)
