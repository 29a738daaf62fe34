"""A bundle with a real image goes into an empty Docker and an empty registry; the image runs as pulled from there.

With one image, the smallest, for the sake of time; the others go the same way.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from kfp_hybrid import __version__, images
from kfp_hybrid.bundle import contents
from kfp_hybrid.bundle.docker import Docker
from kfp_hybrid.bundle.index import Image, Index
from kfp_hybrid.bundle.writer import writing
from kfp_hybrid.package import Package

PROGRAM = str(Path(sys.executable).with_name("kfp-hybrid"))
SERVERS = Path(__file__).parents[1] / "servers"
PATH = f"kfp-hybrid/deployment:{__version__}"


@pytest.fixture(scope="module")
def registry():
    spec = importlib.util.spec_from_file_location("oci_registry", SERVERS / "oci_registry.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.Registry() as running:
        yield running


@pytest.fixture(scope="module")
def bundle(registry, tmp_path_factory):
    """What `bundle create` makes, with one image and without wheels."""
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    site, docker = f"{registry.address}/site", Docker()
    content = Index(version=__version__, registry=site, python="3.11", platform="linux-x86_64")
    with writing(folder, content, print) as writer:
        writer.add("manifests", "", lambda to: contents.write_manifests(to, site, []))
        loaded = contents.site_profiles(folder / "manifests")
        profile = contents.in_registry(loaded.targets["onprem"], site, [])
        writer.add("packages", "", lambda to: contents.write_packages(to, "onprem", profile, loaded))
        file = "images/deployment.tar"
        writer.add(file, docker.identity(images.DEPLOYMENT), lambda to: docker.save(images.DEPLOYMENT, to))
        content.images.append(Image(file=file, reference=images.DEPLOYMENT, path=PATH))
    return folder


class Site:
    """A Docker of its own, which has no image."""

    def __init__(self, folder):
        self.folder = folder
        socket = f"unix://{folder}/socket"
        self.environ = {**os.environ, "DOCKER_HOST": socket}
        command = ["dockerd", "--bridge=none", "--iptables=false", "--ip6tables=false", "-H", socket,
                   "--data-root", folder / "data", "--exec-root", folder / "exec",
                   "--pidfile", folder / "pid"]  # fmt: skip
        with (folder / "log").open("w") as log:
            self.daemon = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def run(self, *command, check=True):
        done = subprocess.run(command, env=self.environ, capture_output=True, text=True)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def stop(self):
        self.daemon.send_signal(signal.SIGTERM)
        self.daemon.wait(300)
        shutil.rmtree(self.folder)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        pytest.skip("a second Docker daemon takes root and dockerd")
    running = Site(tmp_path_factory.mktemp("site"))
    deadline = time.monotonic() + 120
    while running.run("docker", "version", check=False).returncode:
        assert running.daemon.poll() is None and time.monotonic() < deadline, (running.folder / "log").read_text()
        time.sleep(0.2)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def loaded(bundle, site, registry):
    """The site, after a load that was killed once and then went on."""
    assert site.run("docker", "images", "--quiet").stdout == "" and not registry.tags
    load = [PROGRAM, "bundle", "load", str(bundle), "--registry", f"{registry.address}/site"]
    first = subprocess.Popen(load, env=site.environ, stdout=subprocess.DEVNULL)
    while not registry.uploads and not registry.blobs:  # in the midst of the first push
        assert first.poll() is None
        time.sleep(0.01)
    first.kill()
    first.wait()
    done = site.run(*load)
    assert f"pushed {registry.address}/site/{PATH}" in done.stdout
    return site


def test_the_registry_has_the_image_under_its_name_in_the_site(loaded, registry):
    assert registry.tags == {f"site/{PATH}"}


def test_the_image_pulled_from_there_is_the_same_and_runs_as_restricted_pods_do(loaded, registry, somebody, docker):
    reference = f"{registry.address}/site/{PATH}"
    loaded.run("docker", "rmi", images.DEPLOYMENT, reference)
    assert loaded.run("docker", "images", "--quiet").stdout == ""
    loaded.run("docker", "pull", "--quiet", reference)
    identity = ("image", "inspect", "--format", "{{.Id}}")
    assert loaded.run("docker", *identity, reference).stdout == docker(*identity, images.DEPLOYMENT).stdout
    look = "import kfp.dsl.executor_main, kfp_hybrid.components.deployment.push_model.push; print('it runs')"
    done = loaded.run(
        "docker", "run", "--rm", "--user", somebody, "--read-only", "--tmpfs", "/tmp:rw,mode=1777", "--network", "none",
        "--cap-drop", "ALL", reference, "env", "_KFP_RUNTIME=true", "python3", "-c", look,
    )  # fmt: skip
    assert done.stdout == "it runs\n"


def test_what_the_manifests_and_packages_name_is_what_the_registry_has(bundle, registry):
    built = subprocess.run(["kubectl", "kustomize", bundle / "manifests/overlays/airgapped"], capture_output=True,
                           text=True, check=True).stdout  # fmt: skip
    jobs = [each for each in yaml.safe_load_all(built) if each["kind"] == "Job"]
    named = {pod["image"] for job in jobs for pod in job["spec"]["template"]["spec"]["containers"]}
    named |= {step.image for step in Package.load(bundle / "packages/hello.yaml").steps()}
    ours = {name for name in named if "/kfp-hybrid/" in name}
    assert f"{registry.address}/site/{PATH}" in ours
    assert {name.rpartition("/")[0] for name in ours} == {f"{registry.address}/site/kfp-hybrid"}
