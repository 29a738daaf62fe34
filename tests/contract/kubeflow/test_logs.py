"""What steps have printed, against an installation on this machine."""

import pytest

from kfp_hybrid.errors import UserError
from kfp_hybrid.package import Package
from kfp_hybrid.targets.kubeflow import logs


@pytest.fixture
def run_id(target, hello):
    return target.submit(hello, {}).id


def test_the_console_gives_the_lines_of_the_pod(installation, target, run_id, play):
    play(run_id, "RUNNING", {"concatenate": "RUNNING"})
    installation.logs["hello-x7k2p-system-container-impl-0"] = "first\nzweite Zeile: ü\n\nlast without an end"
    assert list(target.logs(run_id, "concatenate")) == ["first", "zweite Zeile: ü", "", "last without an end"]


def test_a_log_of_many_lines_is_whole(installation, target, run_id, play):
    play(run_id, "RUNNING", {"concatenate": "RUNNING"})
    lines = [f"line {number} " + "x" * 100 for number in range(20_000)]
    installation.logs["hello-x7k2p-system-container-impl-0"] = "\n".join(lines) + "\n"
    assert list(target.logs(run_id, "concatenate")) == lines


def test_a_log_that_is_cut_says_so_after_its_lines(installation, target, run_id, play):
    play(run_id, "RUNNING", {"concatenate": "RUNNING"})
    installation.fail("GET /k8s/pod/logs", status=200, body="line\n" * 20_000, cut=True)
    seen = []
    with pytest.raises(UserError, match="the connection was cut, and the log goes on"):
        for line in target.logs(run_id, "concatenate"):
            seen.append(line)
    assert len(seen) > 1000 and set(seen) == {"line"}


def test_the_namespace_and_the_run_are_said(installation, open_target, hello, play):
    installation.namespaces = {"team-a"}
    target = open_target(installation.url, namespace="team-a")
    run_id = target.submit(hello, {}).id
    play(run_id, "FAILED", {"concatenate": "FAILED"})
    installation.logs["hello-x7k2p-system-container-impl-0"] = "sorry"
    assert list(target.logs(run_id, "concatenate")) == ["sorry"]
    (request,) = installation.sent("GET /k8s/pod/logs")
    assert request.query["podnamespace"] == "team-a"
    assert request.query["runid"] == run_id


def test_hashes_of_nodes_are_those_of_argo():
    """The first is of kubeflow/pipelines#11585, the others are those of the authors of FNV-1a."""
    assert logs._hash("debug-component-pipeline-d6wjn.root-driver") == 2907082658
    assert logs._hash("") == 0x811C9DC5
    assert logs._hash("foobar") == 0xBF9CF968
    assert logs._hash("bar", logs._hash("foo")) == 0xBF9CF968


WORKFLOW = "trying-x7k2p"


@pytest.fixture
def start_run(installation, target, play, tmp_path):
    """Starts a run whose step `concatenate` is in a branch, with the nodes of Argo that are given by their names."""
    from kfp import dsl

    from kfp_hybrid.pipelines.hello import concatenate

    def start(retries, nodes):
        @dsl.pipeline(name="trying")
        def trying(really: bool = True):
            with dsl.If(really == True):
                target.configure(concatenate(first="a", second="b"), retries=retries)

        target.compile(trying, tmp_path / "package.yaml")
        run_id = target.submit(Package.load(tmp_path / "package.yaml"), {}).id
        play(run_id, "RUNNING", {"concatenate": "RUNNING"})
        details = installation.runs[run_id]["run_details"]["task_details"]
        (shown,) = [detail for detail in details if detail["display_name"] == "concatenate"]
        shown["child_tasks"] = []
        for node in nodes:
            name = node.rpartition(".")[2]
            if node.rpartition("(")[0].endswith(".concatenate") or node.endswith(".concatenate.executor"):
                shown["child_tasks"].append({"pod_name": f"{WORKFLOW}-{logs._hash(node)}"})
            if name != "executor":
                details.append({**shown, "display_name": name, "child_tasks": []})
        return run_id

    return start


def test_of_a_step_with_retries_the_last_try_is_taken(installation, target, start_run):
    task = f"{WORKFLOW}.root.condition-1.concatenate"
    run_id = start_run(3, [f"{task}.executor", f"{task}.executor(0)", f"{task}.executor(1)"])
    for number in (0, 1):
        pod = f"{WORKFLOW}-retry-system-container-impl-{logs._hash(f'{task}.executor({number})')}"
        installation.logs[pod] = f"try {number}"
    assert list(target.logs(run_id, "concatenate")) == ["try 1"]


@pytest.mark.parametrize(("retries", "template"), [(0, "system-container-impl"), (3, "retry-system-container-impl")])
def test_the_log_is_found_where_argo_may_try_everything_again(installation, target, start_run, retries, template):
    """As Kubeflow Pipelines 2.17 lets it, with `templateDefaults`: each node then is one try of a node above it."""
    task = f"{WORKFLOW}(0).root(0).condition-1(0).concatenate"
    tries = [f"{task}({first}).executor({second})" for first in (0, 1) for second in (0, 1, 2)]
    run_id = start_run(retries, [f"{task}(0)", f"{task}(1)", *tries])
    for node in tries:
        installation.logs[f"{WORKFLOW}-{template}-{logs._hash(node)}"] = node
        assert list(target.logs(run_id, "concatenate")) == [node]


def test_a_log_that_is_gone_says_where_to_look(target, run_id, play):
    play(run_id, "SUCCEEDED", {"concatenate": "SUCCEEDED"})
    with pytest.raises(UserError, match=rf"its pod may be gone. See .*/#/runs/details/{run_id}, or .* kubectl logs"):
        target.logs(run_id, "concatenate")


def test_a_step_that_took_an_earlier_result_has_no_log_here(target, run_id, play):
    play(run_id, "SUCCEEDED", {"concatenate": "CACHED"})
    with pytest.raises(UserError, match="took its result from an earlier run, which has its log"):
        target.logs(run_id, "concatenate")


def test_a_step_that_has_not_begun(target, run_id, play):
    play(run_id, "RUNNING", {"concatenate": "RUNNING"})
    with pytest.raises(UserError, match=f"step reverse of run {run_id} has not begun"):
        target.logs(run_id, "reverse")


def test_a_step_that_the_run_does_not_have(target, run_id, play):
    with pytest.raises(UserError, match=f"run {run_id} has no step training; it has: concatenate, reverse"):
        target.logs(run_id, "training")
