"""Secrets never enter a package: a package says where a secret is, and nothing of what the authoring machine knows."""

import pytest

from kfp_hybrid import profiles
from kfp_hybrid.sources import compile_pipeline, pipeline_names
from kfp_hybrid.targets import open_target

TOKEN, COOKIE, ACCESS_KEY, SECRET_KEY = "token-5d1f0c", "authservice_session=c00k1e", "AKIA0SECRET", "s3cr3t/k3y"
PROFILES = """
[targets.token]
kind = "kubeflow"
host = "https://kubeflow.example.com/pipeline"
auth = { kind = "token", file = "token" }
[targets.token.secrets.storage]
secret = "s3-credentials"
env = { AWS_ACCESS_KEY_ID = "accesskey", AWS_SECRET_ACCESS_KEY = "secretkey" }

[targets.cookie]
kind = "kubeflow"
host = "https://kubeflow.example.com/pipeline"
auth = { kind = "cookie", env = "KFP_COOKIE" }
[targets.cookie.secrets.storage]
secret = "s3-credentials"
path = "/secrets/s3"

[targets.vertex]
kind = "vertex"
project = "ml-production"
location = "europe-west4"
pipeline_root = "gs://ml-production-pipelines/root"
[targets.vertex.secrets.storage.env]
AWS_SECRET_ACCESS_KEY = "projects/ml-production/secrets/s3-secret-key/versions/latest"
"""
REFERENCES = {
    "token": ["s3-credentials", "AWS_SECRET_ACCESS_KEY", "secretkey"],
    "cookie": ["s3-credentials", "/secrets/s3"],
    "vertex": ["secretmanager://projects/ml-production/secrets/s3-secret-key/versions/latest"],
    "local": [],
}


@pytest.fixture
def target_of(tmp_path, monkeypatch):
    """Opens targets on a machine that knows the values of all secrets."""
    monkeypatch.setenv("KFP_COOKIE", COOKIE)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "kfp-hybrid.toml").write_text(PROFILES)
    loaded = profiles.load(tmp_path / "kfp-hybrid.toml")
    return lambda name: open_target(name, loaded, tmp_path / "cache")


@pytest.mark.parametrize("target", REFERENCES)
def test_no_package_of_this_collection_has_a_secret(target_of, tmp_path, target):
    for pipeline in pipeline_names():
        compile_pipeline(pipeline, target_of(target), tmp_path / f"{pipeline}.yaml")
        text = (tmp_path / f"{pipeline}.yaml").read_text()
        assert not [value for value in (TOKEN, COOKIE, "c00k1e", ACCESS_KEY, SECRET_KEY) if value in text]


@pytest.mark.parametrize("target", REFERENCES)
def test_steps_that_need_a_secret_have_a_reference_to_it(target_of, tmp_path, target):
    compile_pipeline("train_and_publish", target_of(target), tmp_path / "package.yaml")
    text = (tmp_path / "package.yaml").read_text()
    assert all(reference in text for reference in REFERENCES[target])
