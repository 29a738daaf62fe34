"""The end-to-end suite, run against a played Kubeflow Pipelines: it passes where all is well, and finds what is not.

The suite itself is for a real one, see docs/testing-on-a-cluster.md.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "servers"))

from kubernetes import client
from minio import Minio
from played_kubeflow.api import playing
from played_kubeflow.results import Results
from played_kubeflow.runs import FAULTS, Player
from s3_server import serve_s3

from kfp_hybrid.cli.options import cache_folder

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(3600)  # of which the main job takes minutes
SUITE = ROOT / "tests/cluster/end_to_end"
ACCESS_KEY, SECRET_KEY = "AKIATESTACCESSKEY", "secret-of-the-tests"
PROFILE = """
[targets.played]
kind = "kubeflow"
host = "{host}"
namespace = "{namespace}"
registry = "127.0.0.1:1/kfp-hybrid"  # nothing answers there, as where the nodes have a network of their own
[targets.played.secrets.storage]
secret = "object-store"
env = {{ AWS_ACCESS_KEY_ID = "accesskey", AWS_SECRET_ACCESS_KEY = "secretkey", S3_ENDPOINT = "endpoint" }}
"""
LAUNCHER = """
minio:
  default:
    endpoint: object-store.{namespace}:9000
    disableSSL: true
    credentials:
      fromEnv: false
      secretRef: {{secretName: object-store, accessKeyKey: accesskey, secretKeyKey: secretkey}}
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What runs come to; $KFP_HYBRID_TEST_RESULTS keeps it for the next time."""
    kept = os.environ.get("KFP_HYBRID_TEST_RESULTS")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("results")
    return Results(folder, cache_folder() / "environments")


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    with serve_s3(tmp_path_factory.mktemp("s3") / "buckets") as server:
        yield server


@pytest.fixture
def bucket(s3):
    """The bucket of the pipeline root, with an object of somebody else."""
    name = s3.make_bucket()
    file = s3.folder / name / "root" / "others" / "object"
    file.parent.mkdir(parents=True)
    file.write_text("theirs")
    return name


@pytest.fixture
def store_in_cluster(admin, admin_kubeconfig, namespace, server_image, s3, bucket):
    """The object store as a service of the cluster, its keys, and the ConfigMap that tells steps of it."""
    if "test-cluster" not in Path(admin_kubeconfig).read_text():
        pytest.skip("the played Kubeflow Pipelines needs a cluster whose node is this machine: ../shared/cluster/up")
    core = client.CoreV1Api(admin)
    keys = {"accesskey": ACCESS_KEY, "secretkey": SECRET_KEY, "endpoint": s3.url}
    core.create_namespaced_secret(namespace, {"metadata": {"name": "object-store"}, "stringData": keys})
    data = {"defaultPipelineRoot": f"minio://{bucket}/root", "providers": LAUNCHER.format(namespace=namespace)}
    core.create_namespaced_config_map(namespace, {"metadata": {"name": "kfp-launcher"}, "data": data})
    ports = [{"port": 9000, "targetPort": s3.port}]
    labels = {"app": "object-store"}
    core.create_namespaced_service(
        namespace, {"metadata": {"name": "object-store"}, "spec": {"selector": labels, "ports": ports}}
    )
    # In the network of the machine, where the store listens.
    container = {"name": "main", "image": server_image, "command": ["sleep", "3600"]}
    spec = {"hostNetwork": True, "containers": [container], "terminationGracePeriodSeconds": 0}
    spec["automountServiceAccountToken"] = False
    core.create_namespaced_pod(namespace, {"metadata": {"name": "object-store", "labels": labels}, "spec": spec})
    while core.read_namespaced_pod("object-store", namespace).status.phase != "Running":
        time.sleep(0.1)


class Installation:
    """A played installation, and the suite on it."""

    def __init__(self, player, environ, folder, s3, bucket):
        self.player = player
        self._environ, self._folder, self._s3, self._bucket = environ, folder, s3, bucket

    def start_suite(self, *arguments):
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={self._folder}/report.xml"]
        return subprocess.Popen(
            [*command, "-s", "-rs", str(SUITE), *arguments], cwd=ROOT, env=self._environ, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run_suite(self, *arguments):
        """What the suite prints, and what it found: nothing, or why a test failed or was skipped, by its name."""
        suite = self.start_suite(*arguments)
        output, _ = suite.communicate()
        cases = ElementTree.parse(self._folder / "report.xml").iter("testcase")
        return output, {case.get("name"): "".join(child.get("message", "") for child in case) for case in cases}

    def clean(self, name):
        command = [sys.executable, "-m", "end_to_end_suite.cleaning", name]
        subprocess.run(command, cwd=ROOT, env={**self._environ, "PYTHONPATH": str(SUITE)}, check=True)

    def left(self):
        """What there is of a suite."""
        api, core = self.player.api, self.player.core
        things = [*api.runs.values(), *api.experiments.values(), *api.pipelines.values(), *api.versions.values()]
        pods = core.list_namespaced_pod(self.player.namespace, label_selector="pipeline/runid").items
        objects = [key for key in self._s3.files(self._bucket) if not key.startswith("root/others/")]
        there = [pod.metadata.name for pod in pods if pod.metadata.deletion_timestamp is None]
        return [thing["display_name"] for thing in [*things, *api.schedules.values()]] + there + objects


@pytest.fixture
def install(admin, admin_kubeconfig, namespace, server_image, s3, bucket, store_in_cluster, results, tmp_path):
    """Installs a played Kubeflow Pipelines that does wrong what it is told to."""
    started = contextlib.ExitStack()

    def start(*faults, variables=False, version="2.17.0"):
        minio = Minio(f"127.0.0.1:{s3.port}", ACCESS_KEY, SECRET_KEY, secure=False, region="us-east-1")
        keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        player = Player(
            admin, namespace, server_image, (minio, bucket, "root"), {**keys, "S3_ENDPOINT": s3.url}, results, faults,
            version,
        )  # fmt: skip
        url = started.enter_context(playing(player, tmp_path / "server"))
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3_", "KFP_H"))}
        environ |= {"KUBECONFIG": admin_kubeconfig, "KFP_HYBRID_CACHE": str(cache_folder()), "PYTHONUNBUFFERED": "1"}
        environ |= {"KFP_HYBRID_TEST_POLL_SECONDS": "0.3", "KFP_HYBRID_TEST_MINUTES": "15"}
        if variables:
            player.api.token = "a-token"
            environ |= {"KFP_HYBRID_TEST_HOST": url, "KFP_HYBRID_TEST_TOKEN": "a-token", **keys}
            environ |= {"KFP_HYBRID_TEST_NAMESPACE": namespace, "KFP_HYBRID_TEST_REGISTRY": "127.0.0.1:1/kfp-hybrid"}
            environ |= {"KFP_HYBRID_TEST_PIPELINE_ROOT": f"minio://{bucket}/root"}
            environ |= {"KFP_HYBRID_TEST_STORE": f"s3://{bucket}/root?endpoint={s3.url}"}
        else:
            profiles = tmp_path / "kfp-hybrid.toml"
            profiles.write_text(PROFILE.format(host=url, namespace=namespace))
            environ |= {"KFP_HYBRID_TEST_TARGET": "played", "KFP_HYBRID_CONFIG": str(profiles)}
        return Installation(player, environ, tmp_path, s3, bucket)

    with started:
        yield start


def test_all_of_it_passes_where_all_is_well_and_nothing_is_left(install):
    installation = install()
    output, found = installation.run_suite()
    assert {name: why for name, why in found.items() if why} == {}, output
    assert len(found) == 21
    assert installation.left() == []


WRONG = {
    "test_the_examples_are_those_that_their_manifest_describes": "is not what the manifest says",
    "test_the_published_model_is_whole": "saved_model.pb is not what the manifest says",
    "test_the_edge_bundle_is_whole": "model.tflite",
    "test_a_second_run_takes_results_from_the_cache_but_publishes_anew": "'cached'",
    "test_steps_from_the_cache_start_no_program_and_write_nothing": "['train-and-p",
    "test_what_a_gate_rejects_is_not_published_and_the_reason_is_in_the_run": "saved_model.pb",
    "test_every_pod_of_a_run_is_confined": "container main: runAsUser 0",
    "test_a_step_is_not_root_and_cannot_become_it": "assert 0 != 0",
    "test_no_pod_shows_a_credential": "system-container-impl-",
    "test_no_log_shows_a_credential": "step evaluate-model",
    "test_a_step_whose_pod_is_deleted_is_tried_again": "is a setting of Argo",
    "test_a_cancelled_run_ends_and_its_pods_too": "the end of all pods: not within",
}


def test_it_finds_what_is_wrong(install):
    installation = install(*FAULTS, version="2.16.1")
    output, found = installation.run_suite("-k", " or ".join(WRONG))
    assert {name: why for name, why in found.items() if not why} == {}, output
    assert {name: found.get(name) for name, reason in WRONG.items() if reason not in found.get(name, "")} == {}
    assert SECRET_KEY not in output
    assert installation.left() == []


@pytest.mark.parametrize(
    ("number", "variables"), [(signal.SIGINT, False), (signal.SIGTERM, True), (signal.SIGKILL, False)]
)
def test_a_suite_that_is_stopped_cleans_up_and_after_a_kill_it_can_be_done(install, number, variables):
    installation = install(variables=variables)
    suite = installation.start_suite("-k", "pod_is_deleted")  # which takes half a minute at least
    read = ""
    while ": run id-" not in read:
        line = suite.stdout.readline()
        assert line, read
        read += line
    suite.send_signal(number)
    rest = suite.communicate()[0]
    if number == signal.SIGKILL:
        assert installation.left() != []
        installation.clean(re.search(r"--clean (e2e-\w+)", read)[1])
    else:
        assert suite.returncode == pytest.ExitCode.INTERRUPTED, read + rest
    assert installation.left() == []
