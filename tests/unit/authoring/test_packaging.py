"""The wheel and the editable install: one import package, complete, and light to import."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import uv

ROOT = Path(__file__).parents[3]
FOLDERS = {"hybrid": "kfp_hybrid", "components": "kfp_hybrid/components", "pipelines": "kfp_hybrid/pipelines"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    # A copy without build leftovers, so that a file which is gone from the source cannot reappear in the wheel; and
    # without what other processes compile meanwhile.
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    subprocess.run([uv.find_uv_bin(), "build", "--quiet", "--wheel", "--out-dir", str(folder), str(source)], check=True)
    return next(folder.glob("*.whl"))


def run_python(code, cwd, path=""):
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(path), "HOME": str(cwd)}
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_nothing_but_kfp_hybrid(wheel):
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"kfp_hybrid"}


def test_the_wheel_holds_every_file_that_components_need(wheel):
    packed = set(zipfile.ZipFile(wheel).namelist())
    missing = []
    for folder, package in FOLDERS.items():
        for file in (ROOT / folder).rglob("*"):
            name = f"{package}/{file.relative_to(ROOT / folder)}"
            if (
                file.is_file()
                and "__pycache__" not in file.parts
                and "compiled" not in file.parts
                and name not in packed
            ):
                missing.append(name)
    assert missing == []


def test_an_installed_wheel_puts_only_kfp_hybrid_on_the_import_path(wheel, tmp_path):
    subprocess.run(
        [uv.find_uv_bin(), "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path / "site"), str(wheel)],
        check=True,
    )
    found = run_python(
        "import importlib.util as u, kfp_hybrid, kfp_hybrid.components, kfp_hybrid.pipelines\n"
        "print(kfp_hybrid.__file__, [n for n in ('components', 'pipelines', 'hybrid') if u.find_spec(n)])",
        tmp_path,
        tmp_path / "site",
    )
    assert found.strip() == f"{tmp_path}/site/kfp_hybrid/__init__.py []"


def test_an_editable_install_puts_only_kfp_hybrid_on_the_import_path(tmp_path):
    found = run_python(
        "import importlib.util as u, kfp_hybrid, kfp_hybrid.components, kfp_hybrid.pipelines\n"
        "print(kfp_hybrid.__file__, [n for n in ('components', 'pipelines', 'hybrid', 'setup') if u.find_spec(n)])",
        tmp_path,
    )
    assert found.strip() == f"{ROOT}/hybrid/__init__.py []"


def test_importing_every_component_imports_nothing_heavy_besides_kfp(tmp_path):
    """What `import kfp` does not import already may only be this project's own small modules."""
    components = [
        f"kfp_hybrid.components.{file.parent.relative_to(ROOT / 'components').as_posix().replace('/', '.')}.component"
        for file in sorted((ROOT / "components").rglob("component.py"))
    ]
    assert len(components) >= 9
    code = (
        "import importlib, json, sys, kfp\n"
        "before = set(sys.modules)\n"
        "import kfp_hybrid\n"
        f"for name in {components!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    added = json.loads(run_python(code, tmp_path))
    assert [name for name in added if not name.startswith("kfp_hybrid")] == []
    # Interfaces and what names them; an implementation would bring its libraries along.
    assert [name for name in added if not name.endswith(".component") and name.count(".") > 3] == []


def test_importing_kfp_hybrid_does_not_even_import_kfp(tmp_path):
    assert run_python("import sys, kfp_hybrid; print('kfp' in sys.modules)", tmp_path).strip() == "False"
