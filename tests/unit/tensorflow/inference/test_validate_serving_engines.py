"""validate_serving tries a model on the engine on which deploy_model runs it."""

import contextlib
from types import SimpleNamespace

import pytest

from kfp_hybrid.components.deployment.model_contents import SERVERS, choose_server
from kfp_hybrid.components.inference.validate_serving.candidate import find_candidate
from kfp_hybrid.components.inference.validate_serving.validate import _find_running
from kfp_hybrid.step import StepError

SAVED_MODEL, BUNDLE = "saved_model.pb", "edge/model.tflite"


@pytest.fixture
def model(tmp_path):
    """Makes the folder of a version that holds empty files."""

    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"")
        return tmp_path

    return make


@pytest.mark.parametrize("names", [[SAVED_MODEL], [SAVED_MODEL, BUNDLE], [BUNDLE]])
@pytest.mark.parametrize("server", ["auto", "kfp-hybrid", "kfp-hybrid-tensorflow"])
def test_what_is_tried_is_what_runs_or_neither_is_possible(model, names, server):
    folder = model(*names)
    artifact = SimpleNamespace(path=str(folder), metadata={})
    outcomes = []
    for choose in (
        lambda: find_candidate(folder, None, SERVERS[server], contextlib.ExitStack()).engine,
        lambda: SERVERS[choose_server(server, artifact, "s3://models/flights/7")],
    ):
        try:
            outcomes.append(choose())
        except StepError:
            outcomes.append("refused")
    assert outcomes[0] == outcomes[1]
    assert outcomes[0] in ("litert", "tensorflow", "refused")


@pytest.mark.parametrize(
    ("names", "engine", "expected"),
    [
        ([SAVED_MODEL, BUNDLE], "auto", "litert"),
        ([SAVED_MODEL, BUNDLE], "tensorflow", "tensorflow"),
        ([SAVED_MODEL], "litert", "tensorflow"),  # an earlier version may have been published without a bundle
    ],
)
def test_the_running_model_is_served_on_the_engine_of_the_candidate_if_it_can_be(model, names, engine, expected):
    with contextlib.ExitStack() as stack:
        assert _find_running(model(*names), "", engine, stack).engine == expected
