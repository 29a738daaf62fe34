"""The catalogue of the components: reads what each one declares, checks it, and writes its README.

    python -m kfp_hybrid.catalog --check    # exit status 1 when a README is out of date or a declaration is wrong
    python -m kfp_hybrid.catalog --write

A README says what the compiled package says, so that the two cannot drift apart. Prose that no interface can hold
goes into `docs.md` beside the component.
"""

import argparse
import datetime
import importlib
import sys
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pydantic
import yaml
from google.protobuf import json_format
from kfp.dsl import base_component, structures

from kfp_hybrid import components, images

ROOT = Path(components.__path__[0]).resolve()
IMAGES = {
    "validation": images.VALIDATION,
    "tensorflow": images.TENSORFLOW,
    "deployment": images.DEPLOYMENT,
    "serving": images.SERVING,
}
PARAMETER_TYPES = {
    "STRING": "str",
    "NUMBER_INTEGER": "int",
    "NUMBER_DOUBLE": "float",
    "BOOLEAN": "bool",
    "LIST": "list",
    "STRUCT": "dict",
}
GENERATED = "<!-- Written by `python -m kfp_hybrid.catalog --write`; edit component.py, metadata.yaml or docs.md. -->"


class CatalogError(Exception):
    """A component that does not declare what it must: one line that names the file."""


class _Declared(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)


class Requirement(_Declared):
    """A service a component needs, and which versions of it."""

    name: str
    version: str


class Dependencies(_Declared):
    """What a component needs around it; its libraries are its image's lock."""

    kubeflow: list[Requirement] = pydantic.Field(min_length=1)


class Metadata(_Declared):
    """What `metadata.yaml` holds."""

    name: str
    stability: typing.Literal["alpha", "beta", "stable"]
    image: typing.Literal["validation", "tensorflow", "deployment", "serving"]
    summary: str = pydantic.Field(min_length=1)
    tags: list[str] = pydantic.Field(min_length=1)
    dependencies: Dependencies
    last_verified: datetime.date = pydantic.Field(alias="lastVerified")


@dataclass(frozen=True)
class Port:
    """An input or an output.

    Attributes:
        name: Its name.
        type: `str`, `int`, `float`, `bool`, `list`, `dict`, or the schema title of an artifact (`system.Model`).
        description: What the package says of it; "" when it says nothing.
        required: Whether a caller must give it; False for outputs.
        default: The default as Python writes it; "" when there is none.
    """

    name: str
    type: str
    description: str
    required: bool = False
    default: str = ""

    @property
    def is_artifact(self) -> bool:
        """Whether it is an artifact; otherwise it is a parameter."""
        return "." in self.type


@dataclass(frozen=True)
class Component:
    """A component as its folder and its compiled package describe it."""

    folder: Path
    metadata: Metadata
    description: str
    image: str
    command: str
    inputs: list[Port]
    outputs: list[Port]
    docs: str

    @property
    def name(self) -> str:
        """The name of the folder, of the module and of the function."""
        return self.folder.name

    @property
    def category(self) -> str:
        """The folder above, for instance `data_validation`."""
        return self.folder.parent.name

    @property
    def module(self) -> str:
        """The module to import the component from."""
        return module_of(self.folder)


def folders(root: Path = ROOT) -> list[Path]:
    """Every folder `<category>/<name>` below `root` that has a component.py, in order."""
    return sorted(path.parent for path in root.glob("*/*/component.py"))


def module_of(folder: Path) -> str:
    """The name of the module that holds the component of `folder`."""
    return f"{components.__name__}.{folder.parent.name}.{folder.name}.component"


def load(folder: Path) -> Component:
    """Read one component.

    Args:
        folder: `<category>/<name>` below the components.

    Returns:
        The component, its inputs and outputs in the order of its signature.

    Raises:
        CatalogError: when its metadata or its interface cannot be read.
    """
    metadata = _load_metadata(folder / "metadata.yaml")
    component = getattr(importlib.import_module(module_of(folder)), folder.name, None)
    if not isinstance(component, base_component.BaseComponent):
        raise CatalogError(f"{folder}/component.py: define a component named {folder.name}, like its folder")
    package = json_format.MessageToDict(component.pipeline_spec)
    (executor,) = package["deploymentSpec"]["executors"].values()
    (interface,) = package["components"].values()
    docs = folder / "docs.md"
    return Component(
        folder=folder,
        metadata=metadata,
        description=component.description or "",
        image=executor["container"]["image"],
        command="\n".join(executor["container"]["command"]),
        inputs=_ports(interface.get("inputDefinitions", {}), component.component_spec.inputs),
        outputs=_ports(interface.get("outputDefinitions", {}), component.component_spec.outputs),
        docs=docs.read_text(encoding="utf-8").strip() if docs.exists() else "",
    )


def problems(component: Component) -> list[str]:
    """What is wrong with a component's declarations, one line each; empty when nothing is."""
    metadata, interface = component.folder / "metadata.yaml", component.folder / "component.py"
    found = []
    if component.metadata.name != component.name:
        found.append(f"{metadata}: the name is {component.metadata.name}; it must be {component.name}")
    if component.image != IMAGES[component.metadata.image]:
        found.append(f"{metadata}: the image is {component.metadata.image}, but the package runs {component.image}")
    if "pip install" in component.command:
        found.append(f"{interface}: installs with pip when it runs; set install_kfp_package=False")
    if not component.description:
        found.append(f"{interface}: the docstring has no summary")
    found += [f"{interface}: describe the input {name} under Args:" for name in _undescribed(component.inputs)]
    # kfp reads the descriptions of all outputs, artifacts too, from Returns: only.
    found += [f"{interface}: describe the output {name} under Returns:" for name in _undescribed(component.outputs)]
    return found


def readme(component: Component) -> str:
    """The README of a component, from its compiled interface."""
    metadata, (summary, _, details) = component.metadata, component.description.partition("\n")
    needs = ", ".join(f"Kubeflow {item.name} {item.version}" for item in metadata.dependencies.kubeflow)
    sections = [
        f"# {component.name}",
        GENERATED,
        summary,
        details.strip(),
        "## Inputs",
        _input_table(component.inputs),
        "## Outputs",
        _output_table(component.outputs),
        "## Usage",
        _usage(component),
        "## Metadata",
        f"* Stability: {metadata.stability}\n"
        f"* Image: `{component.image}`\n"
        f"* Needs: {needs}\n"
        f"* Tags: {', '.join(metadata.tags)}\n"
        f"* Last verified: {metadata.last_verified.isoformat()}",
        component.docs,
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def index(all_components: list[Component]) -> str:
    """The README of the folder of all components: one table per category."""
    sections = ["# Components", GENERATED]
    for category in sorted({component.category for component in all_components}):
        rows = [
            [
                f"[{component.name}]({category}/{component.name}/README.md)",
                component.metadata.summary,
                component.metadata.image,
                component.metadata.stability,
            ]
            for component in all_components
            if component.category == category
        ]
        title = category.replace("_", " ").capitalize()
        sections += [f"## {title}", _table(["Component", "What it does", "Image", "Stability"], rows)]
    return "\n\n".join(sections) + "\n"


def survey(root: Path = ROOT) -> tuple[list[Component], list[str]]:
    """Every component below `root` that can be read, and what is wrong with any, one line each."""
    readable, found = [], []
    for folder in folders(root):
        try:
            component = load(folder)
        except CatalogError as error:
            found.append(str(error))
        else:
            readable.append(component)
            found += problems(component)
    return readable, found


def readmes(all_components: list[Component], root: Path = ROOT) -> dict[Path, str]:
    """What every README must say, by its path."""
    texts = {component.folder / "README.md": readme(component) for component in all_components}
    return {root / "README.md": index(all_components), **texts}


def outdated(texts: dict[Path, str]) -> list[Path]:
    """The files of `texts` that are missing or say something else."""
    return [path for path, text in texts.items() if not path.exists() or path.read_text(encoding="utf-8") != text]


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Check or write the READMEs; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m kfp_hybrid.catalog", description="The READMEs of the components.")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--check", action="store_true", help="list the READMEs that are out of date; status 1 if any")
    mode.add_argument("--write", action="store_true", help="write the READMEs that are out of date")
    options = parser.parse_args(arguments)
    all_components, found = survey(root)
    texts = readmes(all_components, root)
    stale = outdated(texts)
    for path in stale:
        if options.write:
            path.write_text(texts[path], encoding="utf-8")
        print(f"{'wrote' if options.write else 'out of date:'} {path}")
    if stale and options.check:
        found.append("some READMEs are out of date; run: python -m kfp_hybrid.catalog --write")
    for problem in found:
        print(problem, file=sys.stderr)
    return 1 if found else 0


def _load_metadata(path: Path) -> Metadata:
    try:
        return Metadata.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise CatalogError(f"{path} is missing; copy it from another component and adapt it") from None
    except yaml.YAMLError as error:
        raise CatalogError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    except pydantic.ValidationError as error:
        faults = (f"{'.'.join(map(str, fault['loc'])) or 'it'}: {fault['msg']}" for fault in error.errors())
        raise CatalogError(f"{path}: {'; '.join(faults)}") from None


def _ports(
    definitions: dict[str, typing.Any], signature: Mapping[str, structures.InputSpec | structures.OutputSpec] | None
) -> list[Port]:
    """The inputs or outputs of a package; their order and whole numbers as such are in the signature only."""
    compiled = {**definitions.get("artifacts", {}), **definitions.get("parameters", {})}
    ports = []
    for name, declared in (signature or {}).items():
        port, default = compiled[name], getattr(declared, "default", None)
        ports.append(
            Port(
                name=name,
                type=_type(port),
                description=_join_lines(port.get("description", "")),
                required=isinstance(declared, structures.InputSpec) and not port.get("isOptional", False),
                default="" if default is None else repr(default),
            )
        )
    return ports


def _type(port: dict[str, typing.Any]) -> str:
    if "artifactType" not in port:
        return PARAMETER_TYPES[port["parameterType"]]
    title = port["artifactType"]["schemaTitle"]
    return f"list of {title}" if port.get("isArtifactList") else title


def _undescribed(ports: list[Port]) -> list[str]:
    return [port.name for port in ports if not port.description]


def _input_table(ports: list[Port]) -> str:
    rows = [
        [f"`{port.name}`", port.type, f"`{port.default}`" if port.default else _need(port), port.description]
        for port in ports
    ]
    return _table(["Name", "Type", "Default", "Description"], rows)


def _need(port: Port) -> str:
    return "**required**" if port.required else "none"


def _output_table(ports: list[Port]) -> str:
    return _table(["Name", "Type", "Description"], [[f"`{port.name}`", port.type, port.description] for port in ports])


def _usage(component: Component) -> str:
    """A pipeline with one step: what must be given, or the artifacts when nothing must."""
    shown = [port for port in component.inputs if port.required]
    shown = shown or [port for port in component.inputs if port.is_artifact]
    given = [f"        {port.name}={_example(port)},\n" for port in shown]
    call = f"{component.name}(\n{''.join(given)}    )" if given else f"{component.name}()"
    return (
        "```python\n"
        f"from kfp import dsl\n\nfrom {component.module} import {component.name}\n\n\n"
        f"@dsl.pipeline\ndef my_pipeline():\n    task = {call}\n"
        "```"
    )


def _example(port: Port) -> str:
    return f'earlier_task.outputs["{port.name}"]' if port.is_artifact else "..."


def _table(header: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return "None."
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _join_lines(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    sys.exit(main())
