"""Accelerators by neutral name: what Vertex AI and Kubernetes call them, and which Vertex machines carry them.

Where the rows come from:

* `vertex_type`: the enum `AcceleratorType` of google-cloud-aiplatform, against which a test holds every row. The enum
  has no member for TPU v5p and v6e.
* GPU machines: https://cloud.google.com/compute/docs/gpus and, for which of them Vertex AI offers,
  https://cloud.google.com/vertex-ai/docs/training/configure-compute. GPUs can be attached to N1 machines only, of which
  the rows have those with 4 CPUs or more for each GPU; all others have theirs built in.
* TPUs: https://cloud.google.com/vertex-ai/docs/training/training-with-tpu-vm names v5e and v6e, not v5p; machines and
  topologies of one host: https://cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus.
* Node labels: those that GKE puts on its nodes. A cluster that labels its nodes in another way says so in its profile
  (`accelerator_labels`).
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kfp_hybrid.errors import UserError

GPU_RESOURCE = "nvidia.com/gpu"
GPU_LABEL = "cloud.google.com/gke-accelerator"
TPU_RESOURCE = "google.com/tpu"
TPU_LABEL = "cloud.google.com/gke-tpu-accelerator"
TPU_TOPOLOGY_LABEL = "cloud.google.com/gke-tpu-topology"


@dataclass(frozen=True, order=True)
class Machine:
    """A Google Cloud machine type, ordered by size.

    Attributes:
        cpus: Its virtual CPUs.
        memory_gib: Its memory, GiB, which Google Cloud writes as GB.
        name: What Google Cloud calls it.
    """

    cpus: int
    memory_gib: float
    name: str


@dataclass(frozen=True)
class Accelerator:
    """One row of the table.

    Attributes:
        name: The neutral name, which profiles use.
        vertex_type: The accelerator type of Vertex AI; None where it has none, which is to say that no pipeline step
            can ask for it and a custom job asks for the machine alone.
        kubernetes_resource: The resource that a container asks for on Kubernetes.
        node_label: The label (key, value) of the nodes that have it.
        machines: The Vertex AI machines by number of accelerators; empty where Vertex AI has none.
        topologies: TPUs only: how that many chips of one host are arranged.
    """

    name: str
    vertex_type: str | None
    kubernetes_resource: str
    node_label: tuple[str, str]
    machines: Mapping[int, tuple[Machine, ...]]
    topologies: Mapping[int, str] = field(default_factory=dict)

    @property
    def is_gpu(self) -> bool:
        """Whether it is a GPU, for which CUDA is needed; else it is a TPU."""
        return self.kubernetes_resource == GPU_RESOURCE

    def node_labels(self, count: int) -> dict[str, str]:
        """The labels of nodes that have `count` of them.

        Raises:
            UserError: no host has that many TPU chips.
        """
        labels = dict([self.node_label])
        if self.topologies:
            if count not in self.topologies:
                raise UserError(f"a host has {_any_of(self.topologies)} {self.name} chips, not {count}")
            labels[TPU_TOPOLOGY_LABEL] = self.topologies[count]
        return labels


def _family(name: str, gib_per_cpu: float, *cpus: int) -> tuple[Machine, ...]:
    """Machines of a family with a fixed ratio of memory to CPUs, such as n1-standard-4."""
    return tuple(Machine(size, size * gib_per_cpu, f"{name}-{size}") for size in cpus)


def _n1(*cpus: int) -> tuple[Machine, ...]:
    return _family("n1-standard", 3.75, *cpus)


def _g2(*cpus: int) -> tuple[Machine, ...]:
    return _family("g2-standard", 4, *cpus)


def _built_in(name: str, cpus: int, memory_gib: int, *counts: int) -> dict[int, tuple[Machine, ...]]:
    """One machine for each number of GPUs; CPUs and memory are those of the machine with one."""
    return {count: (Machine(count * cpus, count * memory_gib, f"{name}-{count}g"),) for count in counts}


def _gpu(name: str, vertex_type: str, label: str, machines: Mapping[int, tuple[Machine, ...]]) -> Accelerator:
    return Accelerator(name, vertex_type, GPU_RESOURCE, (GPU_LABEL, label), machines)


def _tpu(
    name: str, vertex_type: str | None, label: str, topologies: Mapping[int, str], machines: Mapping[int, Machine]
) -> Accelerator:
    by_count = {count: (machine,) for count, machine in machines.items()}
    return Accelerator(name, vertex_type, TPU_RESOURCE, (TPU_LABEL, label), by_count, topologies)


# How the chips of one v5e or v6e host are arranged.
_FLAT = {1: "1x1", 4: "2x2", 8: "2x4"}

ACCELERATORS: dict[str, Accelerator] = {row.name: row for row in (
    _gpu("T4", "NVIDIA_TESLA_T4", "nvidia-tesla-t4",
         {1: _n1(4, 8, 16), 2: _n1(8, 16, 32), 4: _n1(16, 32, 64, 96)}),
    _gpu("L4", "NVIDIA_L4", "nvidia-l4",
         {1: _g2(4, 8, 12, 16, 32), 2: _g2(24), 4: _g2(48), 8: _g2(96)}),
    _gpu("P100", "NVIDIA_TESLA_P100", "nvidia-tesla-p100",
         {1: _n1(4, 8, 16), 2: _n1(8, 16, 32), 4: _n1(16, 32, 64, 96)}),
    _gpu("V100", "NVIDIA_TESLA_V100", "nvidia-tesla-v100",
         {1: _n1(4, 8), 2: _n1(8, 16), 4: _n1(16, 32), 8: _n1(32, 64, 96)}),
    _gpu("A100-40GB", "NVIDIA_TESLA_A100", "nvidia-tesla-a100",
         {**_built_in("a2-highgpu", 12, 85, 1, 2, 4, 8), 16: (Machine(96, 1360, "a2-megagpu-16g"),)}),
    _gpu("A100-80GB", "NVIDIA_A100_80GB", "nvidia-a100-80gb", _built_in("a2-ultragpu", 12, 170, 1, 2, 4, 8)),
    _gpu("H100", "NVIDIA_H100_80GB", "nvidia-h100-80gb", _built_in("a3-highgpu", 26, 234, 1, 2, 4, 8)),
    _gpu("H200", "NVIDIA_H200_141GB", "nvidia-h200-141gb", _built_in("a3-ultragpu", 28, 369, 8)),
    _gpu("B200", "NVIDIA_B200", "nvidia-b200", _built_in("a4-highgpu", 28, 496, 8)),
    _tpu("TPU-v5e", "TPU_V5_LITEPOD", "tpu-v5-lite-podslice", _FLAT,
         {1: Machine(24, 48, "ct5lp-hightpu-1t"), 4: Machine(112, 192, "ct5lp-hightpu-4t"),
          8: Machine(224, 384, "ct5lp-hightpu-8t")}),
    _tpu("TPU-v5p", None, "tpu-v5p-slice", {4: "2x2x1"}, {}),
    _tpu("TPU-v6e", None, "tpu-v6e-slice", _FLAT,
         {1: Machine(44, 176, "ct6e-standard-1t"), 4: Machine(180, 720, "ct6e-standard-4t"),
          8: Machine(180, 1440, "ct6e-standard-8t")}),
)}  # fmt: skip

# What a custom job without an accelerator runs on; the largest is also the most that a pipeline step can have.
CPU_MACHINES = (
    *_family("e2-standard", 4, 4, 8, 16, 32),
    *_family("e2-highmem", 8, 4, 8, 16),
    *_family("n1-highmem", 6.5, 32, 64, 96),
)


def accelerator(name: str) -> Accelerator:
    """The accelerator with a neutral name.

    Raises:
        UserError: there is no such row; the message lists those that there are.
    """
    if name not in ACCELERATORS:
        by_lower_case = {known.lower(): known for known in ACCELERATORS}
        close = difflib.get_close_matches(name.lower(), by_lower_case, 1)
        hint = f"did you mean {by_lower_case[close[0]]}? " if close else ""
        raise UserError(f"there is no accelerator {name}; {hint}the table has: {', '.join(ACCELERATORS)}")
    return ACCELERATORS[name]


def vertex_machine(name: str | None, count: int = 1, cpus: float = 0, memory_gib: float = 0) -> Machine:
    """The smallest machine of Vertex AI that has what a custom job asks for.

    Args:
        name: The neutral name of an accelerator; None for none.
        count: How many of them.
        cpus: The CPUs that it must have at least.
        memory_gib: The memory that it must have at least, GiB.

    Raises:
        UserError: an unknown accelerator, or no machine has so much.
    """
    machines, what = CPU_MACHINES, "machine"
    if name is not None:
        offered = accelerator(name).machines
        if not offered:
            raise UserError(f"Vertex AI has no machine with {name}")
        if count not in offered:
            raise UserError(f"Vertex AI has no machine with {count} {name}, only with {_any_of(offered)}")
        machines, what = offered[count], f"machine with {count} {name}"
    fitting = [machine for machine in machines if machine.cpus >= cpus and machine.memory_gib >= memory_gib]
    if not fitting:
        largest = max(machines)
        raise UserError(
            f"Vertex AI has no {what} that has {cpus:g} CPUs and {memory_gib:g} GiB; "
            f"the largest, {largest.name}, has {largest.cpus} CPUs and {largest.memory_gib:g} GiB"
        )
    return min(fitting)


def _any_of(counts: Iterable[int]) -> str:
    *first, last = map(str, counts)
    return f"{', '.join(first)} or {last}" if first else last
