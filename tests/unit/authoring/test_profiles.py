"""Target profiles: where `kfp-hybrid.toml` is found, what it may say, and what is said when it is wrong."""

import logging
import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kfp import compiler, dsl, kubernetes

from kfp_hybrid import __version__, images, profiles
from kfp_hybrid.errors import UserError
from kfp_hybrid.profiles import Resources, image_reference, models
from kfp_hybrid.profiles.loading import toml_key
from kfp_hybrid.profiles.reference import TABLES, toml

EXAMPLE = Path(profiles.__file__).with_name("example.toml")
DIGEST = f"sha256:{'0f' * 32}"
KUBEFLOW = '[targets.onprem]\nkind = "kubeflow"\nhost = "http://127.0.0.1:8080"\n'
VERTEX = (
    '[targets.cloud]\nkind = "vertex"\nproject = "ml-production"\nlocation = "europe-west4"\n'
    'pipeline_root = "gs://ml-production-pipelines/root"\n'
)


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """No profiles but those of the test."""
    monkeypatch.delenv("KFP_HYBRID_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def load(tmp_path):
    def write_and_load(text):
        (tmp_path / "kfp-hybrid.toml").write_bytes(text.encode())
        return profiles.load()

    return write_and_load


@pytest.fixture
def refusal(load):
    def message(text):
        with pytest.raises(UserError) as error:
            load(text)
        assert "\n" not in str(error.value)
        return str(error.value)

    return message


# ------------------------------------------------------------------------------------------------ finding the file


def test_without_a_file_there_is_the_target_local():
    found = profiles.load()
    assert found.file is None
    assert found.targets == {"local": profiles.LocalProfile(kind="local")}
    assert found.resources_for("training") == Resources()


def test_the_path_comes_before_the_variable_before_this_folder_before_the_users(tmp_path, monkeypatch):
    places = [
        tmp_path / "config/kfp-hybrid/kfp-hybrid.toml",
        tmp_path / "kfp-hybrid.toml",
        tmp_path / "named.toml",
        tmp_path / "given.toml",
    ]
    found = []
    for number, place in enumerate(places):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"[resources.from-{number}]\ncpu = 1\n")
        if place.name == "named.toml":
            monkeypatch.setenv("KFP_HYBRID_CONFIG", str(place))
        found += profiles.load(place if place.name == "given.toml" else None).resources
    assert found == ["from-0", "from-1", "from-2", "from-3"]


def test_a_file_that_was_named_must_be_there(monkeypatch):
    with pytest.raises(UserError, match=r"cannot read the profiles in absent\.toml: No such file or directory"):
        profiles.load(Path("absent.toml"))
    monkeypatch.setenv("KFP_HYBRID_CONFIG", "~/absent.toml")
    with pytest.raises(UserError, match=r"home/absent\.toml: No such file"):
        profiles.load()


def test_paths_are_relative_to_the_file_and_the_tilde_is_home(tmp_path, monkeypatch):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "p.toml").write_text(
        f'{KUBEFLOW}ca_bundle = "ca.pem"\nauth = {{ kind = "token", file = "~/token" }}\n', "utf-8"
    )
    target = profiles.load(Path("elsewhere/p.toml")).target("onprem")
    assert target.ca_bundle == folder / "ca.pem"
    assert target.auth.file == tmp_path / "home/token"


# ---------------------------------------------------------------------------------------------------- what it says


def test_the_example_of_the_documentation_is_read_whole(tmp_path):
    shutil.copy(EXAMPLE, tmp_path / "kfp-hybrid.toml")
    found = profiles.load()
    assert list(found.targets) == ["local", "onprem", "kind", "vertex"]

    onprem = found.target("onprem")
    assert isinstance(onprem, profiles.KubeflowProfile)
    assert onprem.auth == profiles.CookieAuth(kind="cookie", env="KFP_COOKIE")
    assert onprem.secrets["storage"].env["AWS_ACCESS_KEY_ID"] == "accesskey"
    assert onprem.tolerations[0].operator == "Exists"
    assert isinstance(found.target("kind").auth, profiles.PortForwardAuth)

    vertex = found.target("vertex")
    assert isinstance(vertex, profiles.VertexProfile)
    assert vertex.labels == {"team": "ml"}
    assert found.resources_for("training") == Resources(cpu=8, memory="32Gi", accelerator="L4", count=1)


@pytest.mark.parametrize(
    ("auth", "kind"),
    [
        ('{ kind = "none" }', profiles.NoAuth),
        ('{ kind = "token", file = "token" }', profiles.TokenAuth),
        ('{ kind = "service-account" }', profiles.ServiceAccountAuth),
        ('{ kind = "cookie", file = "cookie" }', profiles.CookieAuth),
        ('{ kind = "kubeconfig", context = "kind-kfp" }', profiles.PortForwardAuth),
    ],
)
def test_each_way_to_sign_in_is_its_own_kind(load, auth, kind):
    assert isinstance(load(f"{KUBEFLOW}auth = {auth}\n").target("onprem").auth, kind)


def test_an_image_of_a_server_that_the_profile_does_not_take_is_refused(load, refusal):
    """Profiles of the time when it was the default name the image alone."""
    image = 'serving_image = "r.local/tensorflow-serving:2"\n'
    assert load(f'{KUBEFLOW}{image}server = "tensorflow-serving"\n').target("onprem").serving_image
    assert refusal(f"{KUBEFLOW}{image}").endswith(
        'targets.onprem.serving_image: is for server = "tensorflow-serving"; set that too, or remove this'
    )


def test_only_a_port_forward_needs_no_host(load, refusal):
    load('[targets.onprem]\nkind = "kubeflow"\nauth = { kind = "kubeconfig" }\n')
    assert refusal('\n[targets.onprem]\nkind = "kubeflow"\n') == (
        "kfp-hybrid.toml, line 2: targets.onprem.host: is missing; only a port-forward needs none"
    )


@pytest.mark.parametrize(
    "root", ["minio://mlpipeline/v2/artifacts", "s3://bucket", "gs://bucket/a", "s3://b-1/x?region=eu"]
)
def test_kubeflow_takes_the_object_stores_that_its_launcher_knows(load, root):
    assert load(f'{KUBEFLOW}pipeline_root = "{root}"\n').target("onprem").pipeline_root == root


def test_a_target_or_resource_name_that_is_not_there(load, caplog):
    found = load(f"{KUBEFLOW}[resources.training]\ncpu = 2\n")
    with pytest.raises(UserError, match=r"there is no target onpremise in kfp-hybrid\.toml; did you mean onprem\?"):
        found.target("onpremise")
    with pytest.raises(UserError, match=r"there is no target x in kfp-hybrid\.toml; it has: local, onprem"):
        found.target("x")
    with caplog.at_level(logging.WARNING):
        assert found.resources_for("evaluation") == Resources()
    assert "kfp-hybrid.toml has no [resources.evaluation], only: training" in caplog.text


# ----------------------------------------------------------------------------------------------------------- images


@pytest.mark.parametrize(
    ("settings_", "reference"),
    [
        ("", f"ghcr.io/kfp-hybrid/tensorflow:{__version__}"),
        ('registry = "registry.local:5000/ml"', f"registry.local:5000/ml/tensorflow:{__version__}"),
        ('images = { tensorflow = "1.4.0-cuda" }', "ghcr.io/kfp-hybrid/tensorflow:1.4.0-cuda"),
        (f'images = {{ tensorflow = "{DIGEST}" }}', f"ghcr.io/kfp-hybrid/tensorflow@{DIGEST}"),
        (
            f'registry = "r.local"\nimages = {{ tensorflow = "1.4.0@{DIGEST}" }}',
            f"r.local/tensorflow:1.4.0@{DIGEST}",
        ),
        ('images = { deployment = "2" }', f"ghcr.io/kfp-hybrid/tensorflow:{__version__}"),
    ],
)
@pytest.mark.parametrize("target", [KUBEFLOW, VERTEX])
def test_an_image_is_taken_from_the_registry_of_the_target_in_the_version_that_it_names(
    load, target, settings_, reference
):
    *_, profile = load(f"{target}{settings_}\n").targets.values()
    assert image_reference(profile, "tensorflow") == reference


def test_the_local_target_has_the_images_of_the_collection():
    local = profiles.load().target("local")
    assert image_reference(local, "validation") == f"ghcr.io/kfp-hybrid/validation:{__version__}"
    with pytest.raises(UserError, match="there is no image cuda; this collection has: validation, tensorflow, deploy"):
        image_reference(local, "cuda")


def test_versions_can_be_given_for_every_image_of_the_collection():
    assert sorted(models.Images.model_fields) == images.names()


# -------------------------------------------------------------------------------------------------------- resources


def test_kfp_takes_the_limits_as_they_are(load, tmp_path):
    resources = load('[resources.x]\ncpu = 0.5\nmemory = "1500M"\n').resources_for("x")
    assert (Resources(cpu=4).cpu_limit, Resources().cpu_limit) == ("4", None)

    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def work():
        pass

    @dsl.pipeline(name="limits")
    def pipeline():
        work().set_cpu_limit(resources.cpu_limit).set_memory_limit(resources.memory)

    compiler.Compiler().compile(pipeline, str(tmp_path / "p.yaml"))
    spec = yaml.safe_load((tmp_path / "p.yaml").read_text())
    limits = spec["deploymentSpec"]["executors"]["exec-work"]["container"]["resources"]
    assert (limits["resourceCpuLimit"], limits["resourceMemoryLimit"]) == ("0.5", "1500M")


@pytest.mark.parametrize(
    ("memory", "gib"),
    [("16Gi", 16), ("512Mi", 0.5), ("2Ti", 2048), ("16G", 14.9012), ("1T", 931.3226), ("100M", 0.0931)],
)
def test_memory_is_understood_in_all_its_units(memory, gib):
    assert Resources(memory=memory).memory_gib == pytest.approx(gib, rel=1e-3)


def test_a_step_goes_to_nodes_that_have_what_it_asks_for(load):
    target = load(
        f'{KUBEFLOW}node_selector = {{ pool = "ml" }}\n'
        'tolerations = [{ key = "a", operator = "Exists" }]\n'
        'accelerator_labels = { T4 = { "nvidia.com/gpu.product" = "Tesla-T4" }, V100 = {} }\n'
        '[targets.onprem.spot]\nnode_selector = { spot = "true" }\ntolerations = [{ key = "spot", value = "yes" }]\n'
    ).target("onprem")
    labels = target.node_labels
    assert labels(Resources()) == {"pool": "ml"}
    assert labels(Resources(accelerator="L4")) == {"pool": "ml", "cloud.google.com/gke-accelerator": "nvidia-l4"}
    assert labels(Resources(accelerator="T4", spot=True)) == {
        "pool": "ml", "nvidia.com/gpu.product": "Tesla-T4", "spot": "true",
    }  # fmt: skip
    assert labels(Resources(accelerator="V100")) == {"pool": "ml"}
    assert [taint.key for taint in target.node_tolerations(Resources())] == ["a"]
    assert [taint.key for taint in target.node_tolerations(Resources(spot=True))] == ["a", "spot"]


def test_kfp_kubernetes_takes_tolerations_as_they_are(load, tmp_path):
    target = load(
        f'{KUBEFLOW}tolerations = [{{ key = "a", effect = "NoExecute", value = "b", toleration_seconds = 9 }}]\n'
    ).target("onprem")

    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def work():
        pass

    @dsl.pipeline(name="tolerates")
    def pipeline():
        task = work()
        for toleration in target.tolerations:
            kubernetes.add_toleration(task, **toleration.model_dump())

    compiler.Compiler().compile(pipeline, str(tmp_path / "p.yaml"))
    platform = list(yaml.safe_load_all((tmp_path / "p.yaml").read_text()))[1]["platforms"]["kubernetes"]
    assert platform["deploymentSpec"]["executors"]["exec-work"]["tolerations"] == [
        {"key": "a", "operator": "Equal", "value": "b", "effect": "NoExecute", "tolerationSeconds": "9"}
    ]


# -------------------------------------------------------------------------------------------------------- credentials


def test_a_token_is_read_when_it_is_needed(load, tmp_path):
    auth = load(f'{KUBEFLOW}auth = {{ kind = "token", file = "token" }}\n').target("onprem").auth
    with pytest.raises(UserError, match=r"cannot read the bearer token from .*/token: No such file or directory"):
        auth.token()
    (tmp_path / "token").write_text("")
    with pytest.raises(UserError, match="/token is empty; it must hold the bearer token"):
        auth.token()
    (tmp_path / "token").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"cannot read the bearer token from .*/token: it is no text"):
        auth.token()
    (tmp_path / "token").write_text("eyJ.first\n")
    assert auth.token() == "eyJ.first"
    (tmp_path / "token").write_text("eyJ.rotated\n")
    assert auth.token() == "eyJ.rotated"


def test_a_cookie_comes_from_a_file_or_from_a_variable(load, tmp_path, monkeypatch):
    (tmp_path / "cookie").write_text("authservice_session=a\n")
    assert load(f'{KUBEFLOW}auth = {{ kind = "cookie", file = "cookie" }}\n').target("onprem").auth.cookie() == (
        "authservice_session=a"
    )
    auth = load(f'{KUBEFLOW}auth = {{ kind = "cookie", env = "KFP_COOKIE" }}\n').target("onprem").auth
    monkeypatch.delenv("KFP_COOKIE", raising=False)
    with pytest.raises(UserError, match="the environment variable KFP_COOKIE with the session cookie is not set"):
        auth.cookie()
    monkeypatch.setenv("KFP_COOKIE", "authservice_session=b")
    assert auth.cookie() == "authservice_session=b"


# ---------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[target.x]", 'line 1: target: there is no such key; did you mean targets?'),
        ('[targets.x]\nkind = "kubernetes"', "line 2: targets.x.kind: must be one of: 'local', 'kubeflow', 'vertex'"),
        ('[targets.x]\nhost = "http://x"', "line 1: targets.x.kind: is missing"),
        ("targets.x = 3", "line 1: targets.x: must be a table"),
        ('[targets."my target"]\nkind = "local"',
         'line 1: targets."my target": must be a name of letters, digits, hyphens and underscores'),
        (f'{KUBEFLOW}[targets.local]\nkind = "kubeflow"\nhost = "http://x"',
         "line 4: targets.local: is this machine; give another target another name"),
        (f'{KUBEFLOW}\n# a comment\npipline_root = "s3://bucket"',
         "line 6: targets.onprem.pipline_root: there is no such key; did you mean pipeline_root?"),
        (f"{KUBEFLOW}namespace = 3", "line 4: targets.onprem.namespace: must be text in quotes"),
        (f'{KUBEFLOW}namespace = "Team_A"',
         "line 4: targets.onprem.namespace: must be a Kubernetes name: "
         "up to 63 lower-case letters, digits and hyphens"),
        (f'{KUBEFLOW}pipeline_root = "https://bucket"',
         "line 4: targets.onprem.pipeline_root: must be minio://, s3:// or gs:// with a bucket, "
         "such as s3://ml-artifacts/pipelines"),
        (f'{KUBEFLOW}node_selector = {{ "a b" = "c" }}',
         'line 4: targets.onprem.node_selector."a b": must be the key of a Kubernetes label, '
         "such as example.com/pool"),
        (f"{KUBEFLOW}node_selector = {{ spot = true }}",
         "line 4: targets.onprem.node_selector.spot: must be text in quotes"),
        (f'{KUBEFLOW}pull_secrets = "one"', "line 4: targets.onprem.pull_secrets: must be a list"),
        (f'{KUBEFLOW}pull_secrets = [\n  "one",\n  "Two"\n]',
         "line 4: targets.onprem.pull_secrets[1]: must be the name of a Kubernetes object: "
         "lower-case letters, digits, hyphens and dots"),
        (f'{KUBEFLOW}tolerations = [{{ operator = "Is" }}]',
         "line 4: targets.onprem.tolerations[0].operator: must be 'Equal' or 'Exists'"),
        (f'{KUBEFLOW}tolerations = [{{ operator = "Exists", value = "x" }}]',
         "line 4: targets.onprem.tolerations[0]: operator Exists takes no value"),
        (f'{KUBEFLOW}tolerations = [{{ effect = "NoSchedule" }}]',
         'line 4: targets.onprem.tolerations[0]: needs a key, or operator = "Exists"'),
        (f'{KUBEFLOW}tolerations = [{{ key = "a", toleration_seconds = 3 }}]',
         'line 4: targets.onprem.tolerations[0]: toleration_seconds needs effect = "NoExecute"'),
        (f'{KUBEFLOW}[targets.onprem.auth]\nkind = "basic"',
         "line 5: targets.onprem.auth.kind: must be one of: 'none', 'token', 'service-account', "
         "'cookie', 'kubeconfig'"),
        (f'{KUBEFLOW}[targets.onprem.auth]\nkind = "token"', "line 4: targets.onprem.auth.file: is missing"),
        (f'{KUBEFLOW}[targets.onprem.auth]\nkind = "token"\nfile = ""',
         "line 6: targets.onprem.auth.file: must be a path"),
        (f'{KUBEFLOW}[targets.onprem.auth]\nkind = "cookie"', "line 4: targets.onprem.auth: needs either file or env"),
        (f'{KUBEFLOW}auth = {{ kind = "kubeconfig", port = 0 }}',
         "line 4: targets.onprem.auth.port: must be greater than or equal to 1"),
        (f'{KUBEFLOW}[targets.onprem.images]\ntensorflo = "1"',
         "line 5: targets.onprem.images.tensorflo: there is no such key; did you mean tensorflow?"),
        (f'{KUBEFLOW}[targets.onprem.images]\ntensorflow = "r.local/tensorflow:1"',
         "line 5: targets.onprem.images.tensorflow: must be a tag such as 1.4.0, a digest sha256:..., or tag@digest"),
        (f'{KUBEFLOW}registry = "https://r.local/"',
         "line 4: targets.onprem.registry: must be a registry and folder such as registry.example.com:5000/ml, "
         "without scheme, tag and final slash"),
        (f'{KUBEFLOW}[targets.onprem.secrets.s]\nsecret = "s3"',
         "line 4: targets.onprem.secrets.s: needs env or path, or the step would not see the secret"),
        (f'{KUBEFLOW}accelerator_labels = {{ "GTX" = {{}} }}',
         "line 4: targets.onprem.accelerator_labels.GTX: there is no accelerator GTX; "),
        (f'{VERTEX}pipeline_rot = "x"', "line 6: targets.cloud.pipeline_rot: there is no such key; did you mean"),
        (VERTEX.replace("gs://", "s3://"),
         "line 5: targets.cloud.pipeline_root: must be gs:// with a bucket, such as gs://ml-artifacts/pipelines"),
        (VERTEX.replace('location = "europe-west4"\n', ""), "line 1: targets.cloud.location: is missing"),
        (VERTEX.replace("europe-west4", "europe"),
         "line 4: targets.cloud.location: must be a Google Cloud region, such as europe-west4"),
        (f'{VERTEX}labels = {{ Team = "ml" }}', "line 6: targets.cloud.labels.Team: must be a label's key: "),
        (f'{VERTEX}labels = {{ team = "ML" }}', "line 6: targets.cloud.labels.team: must be a label's value: "),
        (f'{VERTEX}service_account = "me@example.com"',
         "line 6: targets.cloud.service_account: must be the email of a service account, such as "),
        (f'{VERTEX}encryption_key = "projects/ml-production/locations/us-central1/keyRings/r/cryptoKeys/k"',
         "line 6: targets.cloud.encryption_key: must be in europe-west4"),
        (f'{VERTEX}network_attachment = "projects/ml-production/regions/us-central1/networkAttachments/a"',
         "line 6: targets.cloud.network_attachment: must be in europe-west4"),
        (f'{VERTEX}network = "projects/1/global/networks/n"\n'
         'network_attachment = "projects/ml-production/regions/europe-west4/networkAttachments/a"',
         "line 1: targets.cloud: takes either network or network_attachment, not both"),
        (f'{VERTEX}reserved_ip_ranges = ["r"]', "line 1: targets.cloud: reserved_ip_ranges needs a network"),
        (f"{VERTEX}[targets.cloud.secrets.s]\nenv = {{}}", "line 7: targets.cloud.secrets.s.env: "),
        ("[resources.x]\ncpu = true", "line 2: resources.x.cpu: must be a number"),
        ("[resources.x]\ncpu = inf", "line 2: resources.x.cpu: must be a finite number"),
        ("[resources.x]\ncpu = 0", "line 2: resources.x.cpu: must be greater than or equal to 0.001"),
        ('[resources.x]\nmemory = "16 GB"',
         "line 2: resources.x.memory: must be a whole number with M, Mi, G, Gi, T or Ti, such as 16Gi"),
        ('[resources.x]\naccelerator = "H10"',
         "line 2: resources.x.accelerator: there is no accelerator H10; did you mean H100? the table has: T4, L4, "),
        ('[resources.x]\naccelerator = "T4"\ncount = "2"', "line 3: resources.x.count: must be a whole number"),
        ("[resources.x]\ncount = 2", "line 1: resources.x: count needs an accelerator"),
        ('[resources.x]\nspot = "yes"', "line 2: resources.x.spot: must be true or false"),
        ("[resources.x]\ncpu = 0\nspot = 1",
         "line 2: resources.x.cpu: must be greater than or equal to 0.001 (and 1 more)"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_file_line_and_key(refusal, text, message):
    found = refusal(text + "\n")
    assert found.startswith(f"kfp-hybrid.toml, {message}")
    assert message.endswith((" ", "did you mean")) or found == f"kfp-hybrid.toml, {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[targets.x\nkind = 1\n", "kfp-hybrid.toml is not TOML: .*line 1"),
        ('a = 1\na = 2\n', "kfp-hybrid.toml is not TOML: .*line 2"),
        ("caf\xe9 = 1\n".encode("latin-1"), "kfp-hybrid.toml is not UTF-8 text"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_toml(tmp_path, text, message):
    (tmp_path / "kfp-hybrid.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message):
        profiles.load()


@pytest.mark.parametrize(
    "host",
    ["kubeflow.example.com", "ftp://x", "http://", "http://x:99999", "http://x:y", "http://[::1", "http://a b", "http://x/?q=1",
     "http://x#f"],
)  # fmt: skip
def test_a_host_must_be_an_address(refusal, host):
    assert "line 3: targets.onprem.host: must be a URL" in refusal(KUBEFLOW.replace("http://127.0.0.1:8080", host))


def test_windows_line_ends_and_a_byte_order_mark_change_nothing(load, refusal):
    load("\ufeff" + KUBEFLOW.replace("\n", "\r\n"))
    assert "line 5: targets.onprem.namespace: " in refusal(
        "\ufeff" + KUBEFLOW.replace("\n", "\r\n") + '\r\nnamespace = "A"\r\n'
    )


# ------------------------------------------------------------------------------------- secrets stay out of the file


@pytest.mark.parametrize("key", ["token", "password", "cookie", "secret_key", "access_key", "value", "client_secret"])
@pytest.mark.parametrize(
    "table",
    [
        KUBEFLOW,
        VERTEX,
        f'{KUBEFLOW}[targets.onprem.auth]\nkind = "token"\nfile = "t"\n',
        f'{KUBEFLOW}[targets.onprem.auth]\nkind = "cookie"\nenv = "C"\n',
        f'{KUBEFLOW}[targets.onprem.secrets.s]\nsecret = "s"\npath = "/s"\n',
        f'{VERTEX}[targets.cloud.secrets.s]\nenv = {{ A = "projects/ml-production/secrets/s/versions/1" }}\n',
    ],
)
def test_there_is_no_key_for_the_value_of_a_secret(refusal, table, key):
    message = refusal(f'{table}{key} = "hunter2"\n')
    assert f".{key}: there is no such key; " in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    "text",
    [
        KUBEFLOW.replace("127.0.0.1", "me:hunter2@127.0.0.1"),
        f'{KUBEFLOW}auth = {{ kind = "cookie", env = "authservice_session=hunter2" }}',
        f'{KUBEFLOW}auth = {{ kind = "hunter2!" }}',
        f'{KUBEFLOW}secrets = {{ s = {{ secret = "s", env = {{ A = "hunter2/+=" }} }} }}',
        f'{KUBEFLOW}secrets = {{ s = "hunter2" }}',
        f'{VERTEX}secrets = {{ s = {{ env = {{ A = "hunter2" }} }} }}',
        f'{VERTEX}labels = {{ a = "HUNTER2 hunter2" }}',
        '[resources.x]\nmemory = "hunter2"',
        "targets = 'hunter2'",
    ],
)
def test_a_message_does_not_repeat_what_may_be_a_secret(refusal, text):
    assert "hunter2" not in refusal(text + "\n").lower()


KEYS = st.sampled_from(sorted({key for table in TABLES.values() for key in table.model_fields} | {"x", "T4", "a b"}))
VALUES = st.recursive(
    st.one_of(
        st.booleans(), st.integers(-9, 99999), st.sampled_from(["", "kubeflow", "vertex", "token", "s3://bucket"])
    ),
    lambda value: st.lists(value, max_size=3) | st.dictionaries(KEYS, value, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    content=st.dictionaries(
        st.sampled_from(["targets", "resources"]), VALUES | st.dictionaries(KEYS, VALUES, max_size=3), min_size=1
    )
)
def test_whatever_a_file_holds_is_taken_or_refused_in_one_line(load, content):
    try:
        load("".join(f"{toml_key(key)} = {toml(value)}\n" for key, value in content.items()))
    except UserError as error:
        assert str(error).startswith("kfp-hybrid.toml, line ")
        assert "\n" not in str(error)
