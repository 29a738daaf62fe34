"""What travels between the launching step and the nodes, and how the nodes find each other."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kfp_hybrid.components.training.train_distributed.request import Request, nodes_strategy
from kfp_hybrid.components.training.train_distributed.train_job import addresses, name_of
from kfp_hybrid.components.training.train_model.parameters import Parameters
from kfp_hybrid.step import StepError

nodes = st.integers(1, 200)
uris = st.text(min_size=1).map(lambda text: f"minio://bucket/{text}/model")


def request(nodes=2, **parameters):
    inputs = {"examples": "s3://b/e", "statistics": "s3://b/s", "schema": "s3://b/c"}
    return Request(inputs, "s3://b/m-staging", Parameters("late", **parameters), addresses("train-1", nodes))


@given(nodes, st.data())
def test_all_nodes_see_one_cluster_and_each_its_own_place_in_it(nodes, data):
    asked = request(nodes)
    configs = [asked.tf_config(index) for index in range(nodes)]
    assert all(config["cluster"] == configs[0]["cluster"] for config in configs)
    assert [config["task"] for config in configs] == [{"type": "worker", "index": index} for index in range(nodes)]
    workers = configs[0]["cluster"]["worker"]
    assert len(workers) == len(set(workers)) == nodes
    index = data.draw(st.integers(0, nodes - 1))
    assert workers[index].startswith(f"train-1-node-0-{index}.train-1:")


@given(nodes, st.integers().filter(lambda i: i < 0 or i > 200))
def test_a_pod_that_is_no_node_of_the_training_is_told(nodes, index):
    with pytest.raises(StepError, match=f"this pod is node {index}, but the training has nodes 0 to {nodes - 1}"):
        request(nodes).tf_config(index)


@given(
    st.text(),
    st.lists(st.text()),
    st.dictionaries(st.text(), st.integers() | st.text() | st.booleans() | st.lists(st.integers())),
)
def test_the_nodes_read_the_request_that_was_written(module, features, hyperparameters):
    asked = request(module=module, features=features, hyperparameters=hyperparameters)
    assert Request.from_json(asked.to_json()) == asked


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"parameters": {}}', '{"parameters": {"label": "x"}, "new": 1}']
)
def test_a_request_of_another_version_is_one_line(text):
    with pytest.raises(StepError, match="KFP_HYBRID_TRAINING is no request of this version"):
        Request.from_json(text)


def test_the_request_holds_plain_json_that_people_can_read():
    assert json.loads(request().to_json())["parameters"]["label"] == "late"


@given(uris, uris)
def test_a_training_has_a_name_that_kubernetes_takes_and_no_other_training_has(one, other):
    assert name_of(one) == name_of(one)
    assert (name_of(one) == name_of(other)) == (one == other)
    assert len(f"{name_of(one)}-node-0-199-abcde") <= 63
    assert name_of(one).replace("-", "").isalnum() and name_of(one)[0].isalpha()


@pytest.mark.parametrize("strategy", ["none", "mirrored", "multi_worker", "tpu"])
def test_one_node_trains_with_the_strategy_that_is_asked_for(strategy):
    assert nodes_strategy(strategy, 1) == strategy


@given(st.sampled_from(["none", "mirrored", "multi_worker"]), st.integers(2, 200))
def test_several_nodes_train_together(strategy, nodes):
    assert nodes_strategy(strategy, nodes) == "multi_worker"


def test_several_tpu_nodes_are_refused():
    with pytest.raises(StepError, match="set nodes to 1"):
        nodes_strategy("tpu", 2)
