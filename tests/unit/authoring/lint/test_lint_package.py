"""KH0: the package as a whole."""

import functools

import pytest
from kfp import dsl, kubernetes

from kfp_hybrid import images
from kfp_hybrid.package import Package

step = functools.partial(dsl.component, base_image=images.DEPLOYMENT, install_kfp_package=False)


@step()
def work(number: int = 0):
    pass


def pipeline_named(name, **options):
    @dsl.pipeline(name=name, **options)
    def pipeline():
        work()

    return pipeline


@pytest.fixture
def vertex_job(tmp_path):
    """A function that hands a package to the client of Vertex AI, as for submission, without a network."""
    aiplatform = pytest.importorskip("google.cloud.aiplatform", reason="the extra [vertex] is not installed")
    credentials = pytest.importorskip("google.auth.credentials").AnonymousCredentials()

    def job(package):
        (tmp_path / "job.yaml").write_text(package.text)
        return aiplatform.PipelineJob(
            display_name="job",
            template_path=str(tmp_path / "job.yaml"),
            pipeline_root="gs://bucket/root",
            project="project",
            location="europe-west4",
            credentials=credentials,
        )

    return job


# KH001 platform-document


def pipeline_with_settings():
    @dsl.pipeline(name="p")
    def pipeline():
        kubernetes.set_image_pull_policy(work(), "Always")

    return pipeline


def test_a_second_document_is_an_error_on_vertex(broken):
    assert ("KH001", "", "vertex", "error") in broken(pipeline_with_settings())


def test_the_client_of_vertex_refuses_a_second_document(package, vertex_job):
    with pytest.raises(Exception, match="expected a single document"):
        vertex_job(package(pipeline_with_settings()))


def test_one_document_is_fine(broken):
    assert broken(pipeline_named("p")) == set()  # none of KH001 to KH005


# KH002 pipeline-name


@pytest.mark.parametrize("name", ["1abc", "2026 flights", "n" * 114])
def test_a_name_of_which_vertex_can_make_no_job_id_is_an_error(broken, name):
    assert broken(pipeline_named(name)) == {("KH002", "", "vertex", "error")}


@pytest.mark.parametrize("name", ["a", "Late Flights 2", "n" * 113])
def test_a_name_of_which_vertex_can_make_a_job_id_is_fine(broken, name):
    assert broken(pipeline_named(name)) == set()  # so KH002 is not among them


def test_the_client_of_vertex_agrees_about_names(package, vertex_job):
    for name in ("1abc", "n" * 114):
        with pytest.raises(ValueError, match="illegal as a Vertex pipelines job ID"):
            vertex_job(package(pipeline_named(name)))
    assert vertex_job(package(pipeline_named("n" * 113)))


# KH003 pipeline-root


@pytest.mark.parametrize(
    ("root", "targets"),
    [
        ("gs://bucket/root", {"kubeflow"}),
        ("s3://bucket/root", {"vertex"}),
        ("minio://bucket/root", {"vertex"}),
        ("/data/root", {"kubeflow", "vertex"}),
    ],
)
def test_a_fixed_root_is_an_error_where_it_cannot_be_written(broken, root, targets):
    pipeline = pipeline_named("p", pipeline_root=root)
    assert broken(pipeline) == {("KH003", "", target, "error") for target in targets}


def test_no_root_is_fine(broken):
    assert broken(pipeline_named("p")) == set()  # so KH003 is not among them


# KH004 spec-size


@pytest.mark.parametrize(("kilobytes", "expected"), [(720, {("KH004", "", "kubeflow", "warning")}), (650, set())])
def test_a_package_of_more_than_700_kilobytes_is_a_warning_on_kubeflow(broken, kilobytes, expected):
    @step()
    def measure(text: str):
        pass

    @dsl.pipeline(name="p")
    def pipeline():
        for _ in range(10):
            measure(text="x" * (kilobytes * 100))

    assert broken(pipeline) == expected


# KH005 schema-version


@pytest.mark.parametrize(("version", "expected"), [("2.0.0", {("KH005", "", "kubeflow", "error")}), ("2.1.0", set())])
def test_a_schema_version_that_kubeflow_does_not_take_is_an_error(broken, package, version, expected):
    compiled = package(pipeline_named("p"))
    assert "schemaVersion: 2.1.0" in compiled.text
    compiled.spec.schema_version = version
    assert broken(Package(compiled.spec, compiled.text)) == expected
