"""The table of accelerators, held against Vertex AI's client library and against compiled packages."""

import re

import pytest
import yaml
from kfp import compiler, dsl

from kfp_hybrid.accelerators import ACCELERATORS, CPU_MACHINES, TPU_TOPOLOGY_LABEL, accelerator, vertex_machine
from kfp_hybrid.errors import UserError

ROWS = list(ACCELERATORS.values())


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def work():
    pass


def accelerators_in_a_package(asked, folder):
    """(type, count) of every executor of a compiled pipeline whose tasks ask for these accelerators."""

    @dsl.pipeline(name="asks")
    def pipeline():
        for name, count in asked:
            work().set_accelerator_type(name).set_accelerator_limit(count)

    compiler.Compiler().compile(pipeline, str(folder / "asks.yaml"))
    spec = yaml.safe_load((folder / "asks.yaml").read_text())
    found = [
        executor["container"]["resources"]["accelerator"] for executor in spec["deploymentSpec"]["executors"].values()
    ]
    # kfp writes both the fields that older backends read and the new ones
    assert all((each["type"], str(each["count"])) == (each["resourceType"], each["resourceCount"]) for each in found)
    return sorted((each["resourceType"], int(each["resourceCount"])) for each in found)


def test_every_vertex_type_is_one_that_the_client_library_knows():
    types = pytest.importorskip(
        "google.cloud.aiplatform_v1.types", reason="google-cloud-aiplatform comes with the extra [vertex]"
    )
    for row in ROWS:
        if row.vertex_type is not None:
            spec = types.MachineSpec(accelerator_type=types.AcceleratorType[row.vertex_type], accelerator_count=1)
            assert spec.accelerator_type.name == row.vertex_type
    # Once the enum has members for the TPUs that have none today, their rows are to be completed.
    known_tpus = {member.name for member in types.AcceleratorType if member.name.startswith("TPU")}
    assert known_tpus == {"TPU_V2", "TPU_V3", "TPU_V4_POD", "TPU_V5_LITEPOD"}


def test_a_package_carries_the_vertex_type_and_the_count(tmp_path):
    asked = [(row.vertex_type, max(row.machines)) for row in ROWS if row.vertex_type]
    assert accelerators_in_a_package(asked, tmp_path) == sorted(asked)


def test_a_package_carries_the_kubernetes_resource_and_the_count(tmp_path):
    asked = [(row.kubernetes_resource, 4) for row in ROWS]
    assert accelerators_in_a_package(asked, tmp_path) == sorted(asked)


def test_no_two_accelerators_are_the_same_to_a_platform():
    for name_on in (lambda row: row.vertex_type or row.name, lambda row: row.node_label):
        assert len({name_on(row) for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_names_of_machines_say_the_number_of_accelerators_or_cpus_that_the_row_has(row):
    for count, machines in row.machines.items():
        assert list(machines) == sorted(machines)
        for machine in machines:
            number, unit = re.search(r"-(\d+)([gt]?)$", machine.name).groups()
            assert int(number) == (count if unit else machine.cpus)


@pytest.mark.parametrize(
    ("asked", "machine"),
    [
        (("T4", 1), "n1-standard-4"),
        (("T4", 4), "n1-standard-16"),
        (("L4", 1), "g2-standard-4"),
        (("L4", 1, 10, 60), "g2-standard-16"),
        (("L4", 2), "g2-standard-24"),
        (("V100", 8, 50), "n1-standard-64"),
        (("A100-40GB", 2), "a2-highgpu-2g"),
        (("A100-40GB", 16), "a2-megagpu-16g"),
        (("A100-80GB", 8), "a2-ultragpu-8g"),
        (("H100", 8, 200), "a3-highgpu-8g"),
        (("H200", 8), "a3-ultragpu-8g"),
        (("B200", 8), "a4-highgpu-8g"),
        (("TPU-v5e", 4), "ct5lp-hightpu-4t"),
        (("TPU-v6e", 1), "ct6e-standard-1t"),
        ((None,), "e2-standard-4"),
        ((None, 1, 4, 30), "e2-highmem-4"),
        ((None, 1, 40), "n1-highmem-64"),
        ((None, 1, 96, 624), "n1-highmem-96"),
    ],
)
def test_a_custom_job_gets_the_smallest_machine_that_has_what_it_asks_for(asked, machine):
    assert vertex_machine(*asked).name == machine


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("T4", 3), "Vertex AI has no machine with 3 T4, only with 1, 2 or 4"),
        (("H200", 1), "Vertex AI has no machine with 1 H200, only with 8"),
        (("TPU-v5p", 4), "Vertex AI has no machine with TPU-v5p"),
        (
            ("V100", 1, 16),
            "Vertex AI has no machine with 1 V100 that has 16 CPUs and 0 GiB; "
            "the largest, n1-standard-8, has 8 CPUs and 30 GiB",
        ),
        ((None, 1, 128), "Vertex AI has no machine that has 128 CPUs and 0 GiB; "
                         "the largest, n1-highmem-96, has 96 CPUs and 624 GiB"),
    ],
)  # fmt: skip
def test_what_no_machine_has_is_refused_with_what_there_is(asked, message):
    with pytest.raises(UserError) as error:
        vertex_machine(*asked)
    assert str(error.value) == message


def test_cpu_machines_are_named_after_their_cpus():
    assert all(machine.name.endswith(f"-{machine.cpus}") for machine in CPU_MACHINES)


def test_a_tpu_host_is_found_by_its_chips():
    assert accelerator("TPU-v5e").node_labels(4) == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        TPU_TOPOLOGY_LABEL: "2x2",
    }
    with pytest.raises(UserError, match="a host has 1, 4 or 8 TPU-v6e chips, not 2"):
        accelerator("TPU-v6e").node_labels(2)


def test_a_gpu_node_is_found_by_its_kind_whatever_the_count():
    assert accelerator("T4").node_labels(3) == {"cloud.google.com/gke-accelerator": "nvidia-tesla-t4"}


def test_an_unknown_name_is_refused_with_the_list():
    with pytest.raises(UserError) as error:
        accelerator("a100-80")
    assert "did you mean A100-80GB?" in str(error.value)
    assert all(name in str(error.value) for name in ACCELERATORS)
