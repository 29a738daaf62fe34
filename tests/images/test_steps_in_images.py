"""Steps in the images, as a user whom no image knows, on a read-only file system, without network or capabilities."""

import ast
import importlib
from pathlib import Path

import pytest
from kfp import dsl, local

import kfp_hybrid
from kfp_hybrid import components, images, serving
from kfp_hybrid.components.data_processing.ingest_examples.component import ingest_examples
from kfp_hybrid.components.data_validation.generate_statistics.component import generate_statistics
from kfp_hybrid.components.data_validation.infer_schema.component import infer_schema
from kfp_hybrid.components.deployment.push_model.component import push_model
from kfp_hybrid.components.training.train_model.component import train_model


def modules_of(image_name):
    """What the functions of the components that run in an image import; of the model server, all but its TensorFlow."""
    for interface in sorted(Path(components.__path__[0]).glob("*/*/component.py")):
        category, name = interface.parts[-3:-1]
        component = getattr(importlib.import_module(f"kfp_hybrid.components.{category}.{name}.component"), name)
        if images.name_of(component.component_spec.implementation.container.image) == image_name:
            for node in ast.walk(ast.parse(interface.read_text())):
                if isinstance(node, ast.ImportFrom) and node.col_offset and node.module.startswith("kfp_hybrid."):
                    yield node.module
    if image_name == images.name_of(images.SERVING):
        for source in Path(serving.__path__[0]).glob("[a-z]*.py"):
            if source.stem != "saved_model":  # which only the image tensorflow can serve
                yield f"kfp_hybrid.serving.{source.stem}"


def test_everything_that_the_images_components_import_is_there(image):
    wanted = sorted(set(modules_of(image.name)))
    assert len(wanted) > 1
    look = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]; print(len(sys.argv) - 1)"
    assert int(image.run("env", "_KFP_RUNTIME=true", "python3", "-c", look, *wanted).split()[-1]) == len(wanted)


@pytest.fixture(scope="module")
def ran(tmp_path_factory, somebody):
    """A pipeline through all images, on real rows, started by kfp's own DockerRunner."""

    @dsl.pipeline(name="smoke")
    def smoke():
        ingested = ingest_examples(source="package://kfp_hybrid/samples/flights.csv.gz")
        statistics = generate_statistics(examples=ingested.outputs["examples"])
        schema = infer_schema(statistics=statistics.outputs["statistics"])
        trained = train_model(
            examples=ingested.outputs["examples"],
            statistics=statistics.outputs["statistics"],
            schema=schema.outputs["schema"],
            label="late",
            epochs=1,
        )
        push_model(model=trained.outputs["model"], blessed=True)

    folder = tmp_path_factory.mktemp("smoke")
    folder.chmod(0o777)
    runner = local.DockerRunner(
        user=somebody, read_only=True, tmpfs={"/tmp": "rw,mode=1777"}, network_mode="none", cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
    )  # fmt: skip
    local.init(runner, pipeline_root=str(folder), raise_on_error=True)
    smoke()
    return folder


def test_the_steps_leave_their_results_which_belong_to_the_user_they_ran_as(ran, somebody):
    uid = int(somebody.split(":")[0])
    for name in (
        "examples/manifest.json",
        "stats.pb",
        "schema.pbtxt",
        "model/saved_model.pb",
        "pushed/1/saved_model.pb",
    ):
        found = list(ran.rglob(name))
        assert found, f"no {name} among {sorted(str(path.relative_to(ran)) for path in ran.rglob('*'))}"
        assert found[0].stat().st_uid == uid


def test_a_users_mistake_is_one_line_there_too(image, docker):
    code = "from kfp_hybrid.step import StepError, step\nwith step():\n    raise StepError('no such thing; do this')"
    done = docker("run", "--rm", "--read-only", "--network", "none", image.reference, "python3", "-c", code)
    assert (done.returncode, done.stderr) == (1, "error: no such thing; do this\n")


def test_the_sample_data_came_along(image):
    package = Path(kfp_hybrid.__file__).parent
    size = int(
        image.run("stat", "-c", "%s", "/opt/venv/lib/python3.11/site-packages/kfp_hybrid/samples/flights.csv.gz")
    )
    assert size == (package / "samples" / "flights.csv.gz").stat().st_size
