"""A suite on a real Kubeflow Pipelines: docs/testing-on-a-cluster.md says how to run it.

Everything that it makes carries its name, which is printed at the start, and is taken away at the end, also after
Ctrl-C and SIGTERM. After a kill, `scripts/test-cluster.sh --clean NAME` does it.
"""

import os
import secrets
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from end_to_end_suite import cleaning, settings
from end_to_end_suite.pods import Pods, Secrets
from end_to_end_suite.store import SECRET_FOLDER, NoStore, RunStore, connect, core_of
from end_to_end_suite.suite import SMALL, Suite

from kfp_hybrid.package import Package
from kfp_hybrid.profiles.models import KubernetesSecret, TokenAuth
from kfp_hybrid.targets.kubeflow import KubeflowTarget
from kfp_hybrid.targets.runs import RunStatus

HOURS = 3


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A run on a cluster takes minutes; what is stuck is found by the suite itself."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(HOURS * 3600))


@pytest.fixture(scope="session")
def private_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("private")
    folder.chmod(0o700)
    return folder


@pytest.fixture(scope="session")
def name() -> str:
    """What all names of this suite end with."""
    return os.environ.get("KFP_HYBRID_TEST_NAME") or f"e2e-{secrets.token_hex(3)}"


@pytest.fixture(scope="session")
def target(name: str, private_folder: Path) -> Iterator[KubeflowTarget]:
    """The installation; all that the suite has made there is gone afterwards."""
    found = settings.open_target(os.environ, cleaning.experiment_of(name), private_folder)
    if found is None:
        pytest.skip(settings.NOTHING_SET)
    print(
        f"\nsuite {name}; should it be killed: scripts/test-cluster.sh --clean {name}", file=sys.__stderr__, flush=True
    )
    keys = os.environ.get(SECRET_FOLDER)  # which `connect` sets
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    yield found
    signal.signal(signal.SIGTERM, before)
    try:
        cleaning.clean_up(found, name, private_folder)
    except NoStore as reason:
        print(f"objects of {name} are left: {reason}", file=sys.__stderr__)
    finally:
        os.environ.pop(SECRET_FOLDER, None) if keys is None else os.environ.update({SECRET_FOLDER: keys})


@pytest.fixture(scope="session")
def suite(target: KubeflowTarget, name: str, tmp_path_factory: pytest.TempPathFactory) -> Suite:
    return Suite(
        target,
        name,
        tmp_path_factory.mktemp("packages"),
        poll_seconds=float(os.environ.get("KFP_HYBRID_TEST_POLL_SECONDS", "5")),
        minutes=float(os.environ.get("KFP_HYBRID_TEST_MINUTES", "30")),
    )


@pytest.fixture(scope="session")
def seen_pods(target: KubeflowTarget, suite: Suite) -> Iterator[Pods | None]:
    """The pods of the suite's runs, where they can be seen."""
    core = core_of(target, os.environ)
    if core is None:
        yield None
        return
    watching = Pods(core, target.client.cluster_namespace, suite.run_ids)
    watching.start()
    yield watching
    watching.stop()


@pytest.fixture(scope="session")
def pods(seen_pods: Pods | None) -> Pods:
    """The pods of the suite's runs."""
    if seen_pods is None:
        pytest.skip("pods are not seen: set KUBECONFIG to one that may list, read and delete pods of the runs")
    return seen_pods


@pytest.fixture(scope="session")
def store(target: KubeflowTarget, private_folder: Path) -> RunStore:
    """The pipeline root."""
    try:
        return connect(target, os.environ, private_folder)
    except NoStore as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def storage_secret(target: KubeflowTarget) -> KubernetesSecret:
    """The secret with which steps read data and publish models."""
    secret = target.profile.secrets.get("storage")
    if secret is None:
        pytest.skip("steps have no credentials for data: add [targets.NAME.secrets.storage] to the profile")
    return secret


@pytest.fixture(scope="session")
def known_secrets(target: KubeflowTarget, store: RunStore) -> Secrets:
    """Values that must never be seen: the key of the object store, the token of the sign-in."""
    auth = target.profile.auth
    found = Secrets([*store.secrets, *([auth.token()] if isinstance(auth, TokenAuth) else [])])
    if not found:
        pytest.skip("no credentials are known: set AWS_SECRET_ACCESS_KEY, or KUBECONFIG to read them in the cluster")
    return found


@pytest.fixture(scope="session")
def main_job(suite: Suite) -> Package:
    return suite.package("train_and_publish")


@pytest.fixture(scope="session")
def first(suite: Suite, main_job: Package, seen_pods: Pods | None) -> RunStatus:
    """The main job on the sample of flights that the images bring; nothing of it can be in the cache."""
    return suite.run(main_job, **SMALL)
