"""The command line, and the forms in which findings come: a table, JSON, SARIF 2.1.0, and the page of rules."""

import functools
import json
import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from kfp import compiler, dsl

from kfp_hybrid import __version__, cli, images
from kfp_hybrid.lint import docs
from kfp_hybrid.lint.rules import RULES

ROOT = Path(__file__).parents[4]
step = functools.partial(dsl.component, base_image=images.DEPLOYMENT, install_kfp_package=False)


@step()
def note(text: str = ""):
    pass


@dsl.pipeline(name="broken")
def broken_pipeline(text: str = ""):
    note(text=dsl.PIPELINE_ROOT_PLACEHOLDER).set_cpu_request("1")
    with dsl.If(text == "it's"):
        note()


@dsl.pipeline(name="warned")
def warned_pipeline():
    note().set_cpu_request("1")


@dsl.pipeline(name="clean")
def clean_pipeline():
    note()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with a package of each kind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    for pipeline in (broken_pipeline, warned_pipeline, clean_pipeline):
        compiler.Compiler().compile(pipeline, f"{pipeline.name}.yaml")
    return tmp_path


def lint(*arguments):
    return CliRunner().invoke(cli.main, ["lint", *map(str, arguments)])


def test_a_package_may_be_json_as_older_compilers_write_it(folder):
    Path("broken.json").write_text(json.dumps(yaml.safe_load(Path("broken.yaml").read_text())))
    done = lint("broken.json", "--format", "json")
    assert done.exit_code == 1
    assert {finding["rule"] for finding in json.loads(done.output)["findings"]} >= {"KH101"}


def test_errors_end_with_status_1_and_a_table_of_what_to_do(folder):
    done = lint("broken.yaml")
    assert done.exit_code == 1
    text = " ".join(re.sub("[│┃─━]", " ", done.output).split())
    assert "KH101" in text and "placeholder-unsupported" in text and "note" in text and "kubeflow" in text
    assert "Kubeflow does not fill in {{$.pipeline_root}}" in text
    assert "Use the job's or the task's name or id only" in text
    assert "broken.yaml: 2 errors and 1 warning for local, kubeflow, vertex" in done.output
    assert done.output.index("KH101") < done.output.index("KH210") < done.output.index("KH504")  # errors come first
    assert "\x1b" not in done.output  # no colour where there is no terminal


@pytest.mark.parametrize(
    ("file", "targets", "line"),
    [
        ("clean.yaml", [], "clean.yaml: nothing to mend for local, kubeflow, vertex"),
        ("warned.yaml", ["vertex", "local"], "warned.yaml: 1 warning for vertex, local"),
        ("warned.yaml", ["kubeflow"], "warned.yaml: nothing to mend for kubeflow"),
    ],
)
def test_no_errors_for_the_targets_asked_for_end_with_status_0(folder, file, targets, line):
    done = lint(file, *(word for target in targets for word in ("--target", target)))
    assert done.exit_code == 0
    assert done.output.splitlines()[-1] == line


def test_a_pipeline_of_this_collection_is_linted_by_name(folder):
    done = lint("train_and_publish")
    assert (done.exit_code, done.output) == (0, "train_and_publish: nothing to mend for local, kubeflow, vertex\n")


def test_json_says_everything_once(folder):
    done = lint("broken.yaml", "--format", "json", "--target", "vertex", "--target", "kubeflow")
    assert done.exit_code == 1
    report = json.loads(done.output)
    assert {key: report[key] for key in ("package", "targets", "errors", "warnings")} == {
        "package": "broken.yaml", "targets": ["vertex", "kubeflow"], "errors": 2, "warnings": 1,
    }  # fmt: skip
    unsupported, quote, request = report["findings"]
    assert unsupported == {
        "rule": "KH101",
        "name": "placeholder-unsupported",
        "level": "error",
        "targets": ["kubeflow"],
        "task": "note",
        "message": "input text: Kubeflow does not fill in {{$.pipeline_root}}",
        "mend": "Use the job's or the task's name or id only, or pass the value as a pipeline parameter.",
        "line": unsupported["line"],
    }
    assert (quote["rule"], quote["targets"], quote["task"]) == ("KH210", ["kubeflow", "vertex"], "condition-1")
    assert (request["rule"], request["level"], request["targets"]) == ("KH504", "warning", ["vertex"])


def test_a_finding_names_the_line_of_its_task(folder):
    lines = (folder / "broken.yaml").read_text().splitlines()
    for finding in json.loads(lint("broken.yaml", "--format", "json").output)["findings"]:
        assert lines[finding["line"] - 1].strip() == f"{finding['task']}:"


def test_findings_go_to_a_file(folder):
    for form in ("text", "json", "sarif"):
        done = lint("broken.yaml", "--format", form, "-o", f"found.{form}")
        assert (done.exit_code, done.output) == (1, "")
        assert "KH101" in (folder / f"found.{form}").read_text()
    assert "\x1b" not in (folder / "found.text").read_text()


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("absent.yaml", "there is no package absent.yaml"),
        ("folder.yaml", "cannot read folder.yaml"),
        ("junk.yaml", "junk.yaml is not a compiled KFP v2 pipeline"),
        ("no_such_pipeline", "there is no pipeline no_such_pipeline"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(folder, file, line):
    (folder / "folder.yaml").mkdir()
    (folder / "junk.yaml").write_text("a: [b")
    done = lint(file)
    assert done.exit_code == 1
    assert line in done.output
    assert len(done.output.splitlines()) == 1


def test_a_file_that_cannot_be_written_is_one_line(folder):
    done = lint("clean.yaml", "-o", "absent/found.txt")
    assert (done.exit_code, len(done.output.splitlines())) == (1, 1)
    assert "cannot write absent/found.txt: No such file or directory" in done.output


# SARIF 2.1.0: the section numbers are those of the OASIS standard.


@pytest.fixture
def sarif(folder):
    return json.loads(lint("broken.yaml", "--format", "sarif").output)


def test_a_sarif_log_has_its_version_and_one_run_of_one_tool(sarif):
    assert sarif["version"] == "2.1.0"  # 3.13.2
    assert sarif["$schema"].endswith("/sarif-schema-2.1.0.json")  # 3.13.3
    (run,) = sarif["runs"]  # 3.13.4
    driver = run["tool"]["driver"]  # 3.18.2
    assert driver["name"] == "kfp-hybrid lint"  # 3.19.8
    assert driver["semanticVersion"] == __version__  # 3.19.12
    assert run["columnKind"] in ("utf16CodeUnits", "unicodeCodePoints")  # 3.14.17


def test_a_sarif_log_describes_every_rule(sarif):
    rules = sarif["runs"][0]["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == [rule.id for rule in RULES]  # 3.49.3
    for rule in rules:
        assert re.fullmatch("[A-Z][A-Za-z0-9]+", rule["name"])  # 3.49.7: Pascal case
        assert rule["shortDescription"]["text"].endswith(".")  # 3.49.9, 3.12.3
        assert rule["fullDescription"]["text"].startswith(rule["shortDescription"]["text"])  # 3.49.10
        assert rule["help"]["text"]  # 3.49.13
        assert rule["defaultConfiguration"]["level"] in ("warning", "error")  # 3.49.14, 3.50.3
        assert set(rule["properties"]["tags"]) <= {"local", "kubeflow", "vertex"}  # 3.8.2


def test_a_sarif_result_names_rule_level_message_and_place(sarif, folder):
    (run,) = sarif["runs"]
    lines = (folder / "broken.yaml").read_text().splitlines()
    assert len(run["results"]) == 3
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]  # 3.27.6
        assert result["level"] in ("warning", "error")  # 3.27.10
        assert result["message"]["text"].endswith(".")  # 3.27.11
        (location,) = result["locations"]  # 3.27.12
        physical, (logical,) = location["physicalLocation"], location["logicalLocations"]
        assert physical["artifactLocation"] == {"uri": "broken.yaml"}  # 3.4.3: relative, so that it fits a repository
        assert lines[physical["region"]["startLine"] - 1].strip() == f"{logical['name']}:"  # 3.30.5
        assert logical["fullyQualifiedName"].endswith(logical["name"])  # 3.33.4, 3.33.5
    prints = [result["partialFingerprints"]["kfpHybridLint/v1"] for result in run["results"]]  # 3.27.17
    assert len(set(prints)) == len(prints)


def test_sarif_fingerprints_survive_a_change_elsewhere(folder, sarif):
    text = (folder / "broken.yaml").read_text()
    (folder / "broken.yaml").write_text(f"# one more line\n{text}")
    again = json.loads(lint("broken.yaml", "--format", "sarif").output)
    before, after = (log["runs"][0]["results"] for log in (sarif, again))
    assert [one["partialFingerprints"] for one in before] == [one["partialFingerprints"] for one in after]
    assert before[0]["locations"] != after[0]["locations"]


def test_a_sarif_path_outside_of_the_working_directory_is_a_file_uri(folder, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    log = json.loads(lint(folder / "broken.yaml", "--format", "sarif").output)
    (location,) = log["runs"][0]["results"][0]["locations"]
    assert location["physicalLocation"]["artifactLocation"]["uri"] == (folder / "broken.yaml").as_uri()


def test_a_sarif_log_without_findings_has_an_empty_list(folder):
    log = json.loads(lint("clean.yaml", "--format", "sarif").output)
    assert log["runs"][0]["results"] == []  # 3.14.23: there was a scan, and it found nothing


# docs/lint.md


def test_the_page_of_rules_is_up_to_date():
    assert (ROOT / "docs/lint.md").read_text(encoding="utf-8") == docs.page()


def test_the_page_names_every_rule_with_its_levels():
    page = docs.page()
    for rule in RULES:
        assert f"\n## {rule.id} {rule.name}\n\n{rule.summary}\n" in page
        assert f"](#{rule.id.lower()}-{rule.name})" in page


def test_an_outdated_page_is_found_and_written_anew(tmp_path, capsys):
    page = tmp_path / "lint.md"
    assert docs.main(["--check", str(page)]) == 1
    assert "out of date" in capsys.readouterr().err
    assert docs.main(["--write", str(page)]) == 0
    assert docs.main(["--check", str(page)]) == 0
    page.write_text(page.read_text() + "more\n")
    assert docs.main(["--check", str(page)]) == 1
