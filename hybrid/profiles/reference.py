"""The reference of `kfp-hybrid.toml`, made from its models.

python -m kfp_hybrid.profiles.reference > docs/profiles.md
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from kfp_hybrid.accelerators import ACCELERATORS, TPU_TOPOLOGY_LABEL, Accelerator, Machine
from kfp_hybrid.profiles import models
from kfp_hybrid.profiles.loading import toml_key

TABLES: dict[str, type[models.Table]] = {
    '`[targets.NAME]` with `kind = "local"`': models.LocalProfile,
    '`[targets.NAME]` with `kind = "kubeflow"`': models.KubeflowProfile,
    '`[targets.NAME.auth]` with `kind = "none"`': models.NoAuth,
    '`[targets.NAME.auth]` with `kind = "token"`': models.TokenAuth,
    '`[targets.NAME.auth]` with `kind = "service-account"`': models.ServiceAccountAuth,
    '`[targets.NAME.auth]` with `kind = "cookie"`': models.CookieAuth,
    '`[targets.NAME.auth]` with `kind = "kubeconfig"`': models.PortForwardAuth,
    "`[targets.NAME.secrets.SECRET]` of a Kubeflow target": models.KubernetesSecret,
    "`[[targets.NAME.tolerations]]` of a Kubeflow target": models.Toleration,
    "`[targets.NAME.spot]` of a Kubeflow target": models.SpotNodes,
    '`[targets.NAME]` with `kind = "vertex"`': models.VertexProfile,
    "`[targets.NAME.secrets.SECRET]` of a Vertex AI target": models.SecretManagerSecret,
    "`[targets.NAME.images]` of a Kubeflow or Vertex AI target": models.Images,
    "`[resources.NAME]`": models.Resources,
}

INTRODUCTION = """\
<!-- Written by `python -m kfp_hybrid.profiles.reference > docs/profiles.md`; edit hybrid/profiles/. -->
# Target profiles

`kfp-hybrid.toml` names the places where pipelines run, and what their steps get there. It is looked for in this order;
the first one counts alone:

1. the file given with `--config`
2. the file that the environment variable `KFP_HYBRID_CONFIG` names
3. `kfp-hybrid.toml` in the current folder
4. `kfp-hybrid.toml` in the user's configuration folder, such as `~/.config/kfp-hybrid/`

Without any, there is the target `local`, this machine; it is there with a file too.

The file holds no secrets, and no key takes one: it says where they are. Those that sign you in are in a file or an
environment variable; those that steps need are in Kubernetes secrets or in Secret Manager, and a package carries
their names only. Paths are relative to the folder of the file; `~` is your home.

## Example

```toml
"""

ACCELERATORS_INTRODUCTION = """
## Accelerators

`accelerator` in `[resources.NAME]` is one of these names. A step on Kubernetes asks for the resource, on nodes with
the label; labels are those of GKE, and `accelerator_labels` of a Kubeflow target replaces them. A step on Vertex AI
asks for the type, and Vertex AI finds the machine; where there is no type, only a custom job can have the accelerator,
by its machine. A custom job gets the smallest of the machines that has the CPUs and the memory which it asks for.

| name | Kubernetes resource | node label | Vertex AI type | Vertex AI machines by count |
|---|---|---|---|---|
"""


def reference() -> str:
    """The page, Markdown."""
    example = Path(__file__).with_name("example.toml").read_text("utf-8")
    tables = "".join(_section(title, table) for title, table in TABLES.items())
    rows = "".join(_accelerator(row) for row in ACCELERATORS.values())
    return f"{INTRODUCTION}{example}```\n{tables}{ACCELERATORS_INTRODUCTION}{rows}"


def _section(title: str, table: type[models.Table]) -> str:
    fields = sorted(table.model_fields.items(), key=lambda item: item[0] != "kind")  # it comes first in a file too
    rows = "".join(
        f"| `{key}` | {field.description} | {_default(field)} | {_example(field)} |\n" for key, field in fields
    )
    return f"\n## {title}\n\n{table.__doc__}\n\n| key | meaning | default | example |\n|---|---|---|---|\n{rows}"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    if isinstance(field.default, models.NoAuth):
        return '`{ kind = "none" }`'
    if field.default in (None, {}, [], models.Images()):
        return "none"
    return f"`{toml(field.default if not isinstance(field.default, Path) else str(field.default))}`"


def _example(field: FieldInfo) -> str:
    return f"`{toml(field.examples[0])}`" if field.examples else ""


def toml(value: Any) -> str:
    """A value as TOML writes it in one line; what it shares with JSON is all but tables."""
    if isinstance(value, dict):
        items = ", ".join(f"{toml_key(key)} = {toml(item)}" for key, item in value.items())
        return f"{{ {items} }}" if items else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _accelerator(row: Accelerator) -> str:
    labels = [f"`{': '.join(row.node_label)}`"]
    if row.topologies:
        shapes = ", ".join(f"{topology} for {count}" for count, topology in row.topologies.items())
        labels.append(f"`{TPU_TOPOLOGY_LABEL}`: {shapes}")
    vertex_type = f"`{row.vertex_type}`" if row.vertex_type else "none"
    machines = "; ".join(f"{count}: {_machines(offered)}" for count, offered in row.machines.items()) or "none"
    return f"| `{row.name}` | `{row.kubernetes_resource}` | {', '.join(labels)} | {vertex_type} | {machines} |\n"


def _machines(machines: Sequence[Machine]) -> str:
    """Machines of one family, such as `n1-standard-4/8/16`."""
    family, dash, _ = machines[0].name.rpartition("-")
    return f"{family}{dash}{'/'.join(machine.name.removeprefix(family + dash) for machine in machines)}"


if __name__ == "__main__":
    print(reference(), end="")
