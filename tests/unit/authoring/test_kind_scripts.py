"""kind-up.sh and kind-down.sh: what they ask docker, kind and kubectl for, recorded by stubs of these programs.

The stubs stand in for what cannot run everywhere; `kubectl kustomize` of a local folder and everything of this project
that the scripts use is real, except that nothing is installed and no run is submitted.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kfp_hybrid import images, profiles

ROOT = Path(__file__).parents[3]
KUBECTL = shutil.which("kubectl")
pytestmark = pytest.mark.skipif(KUBECTL is None, reason="no kubectl")

STUB = r"""#!/bin/bash
name=${0##*/}
echo "$name $*" >> "$STUBS/calls"
[ -e "$STUBS/fails" ] && [[ "$name $*" == "$(cat "$STUBS/fails")"* ]] && { echo "$name: it does not work" >&2; exit 1; }
case "$name $*" in
  "docker inspect --format {{.State.Running}} kfp-registry") [ -e "$STUBS/registry" ] && echo true || exit 1 ;;
  "docker inspect kfp-registry") [ -e "$STUBS/registry" ] || exit 1 ;;
  "docker start kfp-registry") exit 1 ;;
  "docker run --detach"*) touch "$STUBS/registry" ;;
  "docker rm "*) rm "$STUBS/registry" ;;
  "docker network inspect --format "*) [ -e "$STUBS/connected" ] && echo "kfp-control-plane kfp-registry " ;;
  "docker network connect "*) touch "$STUBS/connected" ;;
  "docker exec --interactive "*) cat > "$STUBS/hosts.toml" ;;
  "kind get clusters") [ -e "$STUBS/cluster" ] && { echo kfp; seq 100000; } || echo "No kind clusters found." >&2 ;;
  "kind create cluster "*) touch "$STUBS/cluster" ;;
  "kind delete cluster "*) rm "$STUBS/cluster" ;;
  "kind get nodes "*) echo kfp-control-plane ;;
  "kubectl kustomize https://"*) cat "$STUBS/upstream.yaml" ;;
  "kubectl kustomize "*) exec "$KUBECTL" "$@" ;;
  "kubectl "*" get secret "*) printf value | base64 ;;
  "kubectl "*" get pods "*) printf 'ghcr.io/kubeflow/kfp-frontend:2.17.0 sha256:abc\n' ;;
  "kubectl "*" apply -n kubeflow -f -") cat > "$STUBS/secret.yaml" ;;
  "kubectl "*" apply -k "*) "$KUBECTL" kustomize "${@: -1}" > "$STUBS/overlay.yaml" ;;
esac
exit 0
"""
APPLY = "kubectl --context kind-kfp apply"
UPSTREAM = "kind: Deployment\nspec:\n  image: ghcr.io/kubeflow/kfp-frontend:2.17.0\n"


class Scripts:
    """A copy of the repository in which the scripts find stubs."""

    def __init__(self, folder):
        self.root = folder / "repository"
        self.state = folder / "stubs"
        self.programs = folder / "bin"
        self.path = f"{self.programs}:/usr/bin:/bin"
        self.state.mkdir()
        self.programs.mkdir()
        (self.state / "upstream.yaml").write_text(UPSTREAM)
        ignored = shutil.ignore_patterns("__pycache__", "*.env")
        for name in ("scripts", "manifests"):
            shutil.copytree(ROOT / name, self.root / name, ignore=ignored)
        for name in ("hybrid", "components"):
            (self.root / name).symlink_to(ROOT / name)
        (self.root / "scripts/setup.sh").write_text('echo "setup $*" >> "$STUBS/calls"\n')
        (self.root / ".venv/bin").mkdir(parents=True)
        (self.root / ".venv/bin/python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (self.root / ".venv/bin/python").chmod(0o755)
        for place in (
            *(self.programs / name for name in ("docker", "kind", "kubectl")),
            self.root / ".venv/bin/kfp-hybrid",
        ):
            place.write_text(STUB)
            place.chmod(0o755)

    def run(self, script, *arguments):
        (self.state / "calls").unlink(missing_ok=True)
        environ = {"PATH": self.path, "STUBS": str(self.state), "KUBECTL": str(KUBECTL), "HOME": str(self.state)}
        done = subprocess.run(
            ["/bin/bash", self.root / "scripts" / script, *arguments], env=environ, capture_output=True, text=True
        )
        calls = self.state / "calls"
        done.calls = calls.read_text().splitlines() if calls.exists() else []
        return done

    def fail_at(self, call):
        (self.state / "fails").write_text(call)

    def documents(self, name):
        return list(yaml.safe_load_all((self.state / name).read_text()))


@pytest.fixture
def scripts(tmp_path):
    return Scripts(tmp_path)


@pytest.fixture
def up(scripts):
    done = scripts.run("kind-up.sh", "--minimal")
    assert done.returncode == 0, done.stderr
    return done


def position(calls, start):
    (found,) = {number for number, call in enumerate(calls) if call.startswith(start)} or {None}
    assert found is not None, f"no call starts with {start}"
    return found


def test_everything_is_set_up_in_the_order_in_which_it_is_needed(up):
    order = ["docker run --detach --restart unless-stopped --name kfp-registry --publish 127.0.0.1:5001:5000 ",
             "kind create cluster --config manifests/kind/cluster.yaml", "docker network connect kind kfp-registry",
             "docker push localhost:5001/kfp-hybrid/validation:",
             f"{APPLY} --server-side --force-conflicts -f .cache/kind/cluster-scoped.yaml",
             f"{APPLY} --server-side --force-conflicts -f .cache/kind/kfp.yaml",
             "kubectl --context kind-kfp -n kubeflow wait --for=condition=available", f"{APPLY} -n kubeflow -f -",
             f"{APPLY} -k .cache/kind", "kubectl --context kind-kfp -n kubeflow wait --for=condition=complete",
             "kfp-hybrid run train_and_publish --target kind --watch"]  # fmt: skip
    positions = [position(up.calls, start) for start in order]
    assert positions == sorted(positions)


def test_every_image_is_built_and_pushed(up):
    pushed = {call.rpartition("/")[2].partition(":")[0] for call in up.calls if call.startswith("docker push ")}
    assert pushed == set(images.names())


def test_every_call_of_kubectl_that_changes_something_names_the_cluster(up):
    others = [call for call in up.calls if call.startswith("kubectl") and "--context kind-kfp" not in call]
    assert others and all(call.startswith("kubectl kustomize ") for call in others)


def test_the_node_finds_the_registry(up, scripts):
    assert (scripts.state / "hosts.toml").read_text() == '[host."http://kfp-registry:5000"]\n'
    assert "docker exec kfp-control-plane mkdir -p /etc/containerd/certs.d/localhost:5001" in up.calls


def test_the_target_is_in_a_file_of_its_own_and_is_one(up, scripts):
    file = scripts.root / ".cache/kind/kfp-hybrid.toml"
    target = profiles.load(file).targets["kind"]
    assert (target.registry, target.serving) == ("localhost:5001/kfp-hybrid", "deployment")
    assert f"export KFP_HYBRID_CONFIG={file} KFP_HYBRID_TARGET=kind" in up.stdout
    assert not (scripts.root / "kfp-hybrid.toml").exists()


def test_what_is_installed_names_the_local_registry(up, scripts):
    objects = scripts.documents("overlay.yaml")
    (job,) = [each for each in objects if each["kind"] == "Job"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["image"].startswith("localhost:5001/kfp-hybrid/deployment:")
    (profile,) = [each for each in objects if each["metadata"]["name"] == "kfp-hybrid-profile"]
    assert 'registry = "localhost:5001/kfp-hybrid"' in profile["data"]["kfp-hybrid.toml"]


def test_the_secret_has_the_keys_of_the_store_and_no_call_shows_them(up, scripts):
    (secret,) = scripts.documents("secret.yaml")
    assert set(secret["data"]) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "S3_ENDPOINT"}
    assert secret["data"]["AWS_SECRET_ACCESS_KEY"] == "dmFsdWU="
    assert not any("dmFsdWU" in call or "=value" in call for call in up.calls)
    assert not list(scripts.root.rglob("*.env"))


def test_a_second_call_keeps_what_is_there(up, scripts):
    again = scripts.run("kind-up.sh", "--minimal")
    assert again.returncode == 0, again.stderr
    made = ("docker run --detach", "kind create", "docker network connect")
    assert not [call for call in again.calls if call.startswith(made)]


def test_without_minimal_kserve_is_installed_and_serves(scripts):
    done = scripts.run("kind-up.sh", "--no-run")
    assert done.returncode == 0, done.stderr
    source = "kubectl kustomize https://github.com/kserve/kserve/config"
    order = [f"{source}/{part}?ref=v0.20.0" for part in ("crd/full", "overlays/standalone/kserve", "runtimes")]
    positions = [position(done.calls, start) for start in order]
    positions.append(position(done.calls, "kubectl --context kind-kfp -n kserve patch configmap"))
    positions.append(position(done.calls, f"{APPLY} --server-side --force-conflicts -f .cache/kind/serving.yaml"))
    assert positions == sorted(positions)
    runtimes = yaml.safe_load_all((scripts.root / ".cache/kind/serving.yaml").read_text())
    images_used = [container["image"] for runtime in runtimes for container in runtime["spec"]["containers"]]
    assert len(images_used) == 2 and all(image.startswith("localhost:5001/kfp-hybrid/") for image in images_used)
    assert profiles.load(scripts.root / ".cache/kind/kfp-hybrid.toml").targets["kind"].serving == "kserve"
    assert not any(call.startswith("kfp-hybrid run") for call in done.calls)


def test_minimal_installs_no_kserve(up):
    assert not any("kserve" in call or "cert-manager" in call for call in up.calls)


def test_an_image_that_is_not_in_the_list_is_not_installed(scripts):
    (scripts.state / "upstream.yaml").write_text(UPSTREAM.replace("kfp-frontend", "kfp-new"))
    done = scripts.run("kind-up.sh", "--minimal")
    assert done.returncode == 1
    assert "ghcr.io/kubeflow/kfp-new:2.17.0, which is not in the list" in done.stderr
    assert not any("apply" in call for call in done.calls)


def test_a_digest_of_the_list_is_put_into_what_is_installed(scripts):
    file = scripts.root / "manifests/kind/images.yaml"
    digest = f"sha256:{'a' * 64}"
    entry = 'name: ghcr.io/kubeflow/kfp-frontend, tag: "2.17.0"'
    assert entry in file.read_text()
    file.write_text(file.read_text().replace(entry, f'{entry}, digest: "{digest}"'))
    assert scripts.run("kind-up.sh", "--minimal", "--no-run").returncode == 0
    assert f"kfp-frontend:2.17.0@{digest}\n" in (scripts.root / ".cache/kind/kfp.yaml").read_text()


def test_kubeflow_pipelines_may_come_from_a_folder(scripts, tmp_path):
    missing = scripts.run("kind-up.sh", "--kfp-manifests", str(tmp_path))
    assert missing.returncode == 1 and "cluster-scoped.yaml" in missing.stderr and not missing.calls
    for name in ("cluster-scoped.yaml", "kfp.yaml"):
        (tmp_path / name).write_text(UPSTREAM)
    done = scripts.run("kind-up.sh", "--minimal", "--kfp-manifests", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert not any("github.com" in call for call in done.calls)


@pytest.mark.parametrize("tool", ["docker", "kind", "kubectl"])
def test_a_tool_that_is_not_there_is_said_before_anything_is_done(scripts, tool):
    (scripts.programs / tool).unlink()
    for name in ("bash", "dirname", "mktemp", "rm", "git"):  # the tools of this machine are not to be found
        (scripts.programs / name).symlink_to(shutil.which(name))
    scripts.path = str(scripts.programs)
    done = scripts.run("kind-up.sh")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: there is no {tool}; install it: https://")
    assert len(done.stderr.splitlines()) == 1
    assert done.calls == []


@pytest.mark.parametrize(
    "call, message",
    [
        ("docker version", "Docker does not answer"),
        ("docker run --detach", "cannot start the registry; is port 5001 taken?"),
        ("kind create cluster", "kind cannot make the cluster"),
        ("docker push", "cannot push localhost:5001/kfp-hybrid/deployment"),
        ("kubectl kustomize https://", "cannot fetch Kubeflow Pipelines from GitHub"),
        (
            "kubectl --context kind-kfp -n kubeflow wait --for=condition=available",
            "Kubeflow Pipelines does not get ready",
        ),
        ("kubectl --context kind-kfp -n kubeflow wait --for=condition=complete", "the packages are not uploaded"),
    ],
)
def test_what_fails_is_said_and_a_call_later_goes_on(scripts, call, message):
    scripts.fail_at(call)
    done = scripts.run("kind-up.sh", "--minimal")
    assert done.returncode == 1
    assert f"error: {message}" in done.stderr
    assert "The cluster is up" not in done.stdout
    (scripts.state / "fails").unlink()
    assert scripts.run("kind-up.sh", "--minimal").returncode == 0


def test_down_removes_all_that_up_made_and_a_second_call_finds_nothing(up, scripts):
    done = scripts.run("kind-down.sh")
    assert done.returncode == 0, done.stderr
    assert {"kind delete cluster --name kfp", "docker rm --force --volumes kfp-registry"} <= set(done.calls)
    assert not (scripts.root / ".cache/kind").exists()
    again = scripts.run("kind-down.sh")
    assert again.returncode == 0
    assert not any(call.startswith(("kind delete", "docker rm")) for call in again.calls)


@pytest.mark.parametrize("script", ["kind-up.sh", "kind-down.sh"])
def test_an_option_that_there_is_not_is_answered_with_the_usage(scripts, script):
    done = scripts.run(script, "--nonsense")
    assert done.returncode == 1 and done.stderr.startswith("error: usage: scripts/") and not done.calls
