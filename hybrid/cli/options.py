"""Options that several commands share."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import platformdirs

from kfp_hybrid.errors import UserError

if TYPE_CHECKING:  # kfp takes half a second to import; only the commands that need it pay for it
    from kfp_hybrid.package import Package
    from kfp_hybrid.profiles import Profiles
    from kfp_hybrid.targets import Target

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
Command = Callable[..., Any]

target_option = click.option(
    "--target", "target_name", default="local", show_default=True, envvar="KFP_HYBRID_TARGET", metavar="NAME",
    help="Where: `local`, or a target of the profiles.",
)  # fmt: skip
config_option = click.option(
    "--config", type=FILE, help="The profiles; else $KFP_HYBRID_CONFIG, ./kfp-hybrid.toml, the user's own."
)
runs_option = click.option(
    "-o", "--runs", "folder", type=FOLDER, default="kfp-hybrid-runs", show_default=True,
    help="Where local runs go.",
)  # fmt: skip
cache_option = click.option(
    "--cache/--no-cache", default=True, help="Reuse the results of steps whose inputs have not changed."
)


def parameter_options(command: Command) -> Command:
    """The values of a pipeline's parameters: `-p` and `--parameters`, passed on as `pairs` and `file`."""
    command = click.option("--parameters", "file", type=FILE, help="A JSON file of parameters; -p overrides it.")(
        command
    )
    return click.option(
        "-p", "--parameter", "pairs", multiple=True, metavar="NAME=VALUE", help="A parameter; may be repeated."
    )(command)


def cache_folder() -> Path:
    """Where environments and cached steps are kept: `$KFP_HYBRID_CACHE`, else the user's cache directory."""
    return Path(os.environ.get("KFP_HYBRID_CACHE") or platformdirs.user_cache_dir("kfp-hybrid")).absolute()


def load_profiles(config: Path | None) -> "Profiles":
    """The profiles of `config`, or of the usual places."""
    from kfp_hybrid import profiles

    return profiles.load(config)


def open_target(name: str, config: Path | None) -> "Target":
    """The target `name` of the profiles."""
    from kfp_hybrid import targets

    return targets.open_target(name, load_profiles(config), cache_folder())


def open_package(pipeline: str, target: "Target") -> "Package":
    """A compiled package, or the package of a pipeline as compiled for `target`."""
    from kfp_hybrid.package import Package
    from kfp_hybrid.sources import compile_pipeline

    if pipeline.endswith((".yaml", ".yml", ".json")):
        return Package.load(Path(pipeline))
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / "package.yaml"
        compile_pipeline(pipeline, target, compiled)
        return Package.load(compiled)


def with_address(text: str, url: str) -> str:
    """`text` and the page of the console about it, which is "" where only a port-forward leads to the console."""
    return f"{text}: {url}" if url else text


def given_parameters(pairs: tuple[str, ...], file: Path | None) -> dict[str, Any]:
    """Parameters from a JSON file and from `-p`, which override it."""
    given = _read_parameters(file) if file else {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"-p takes NAME=VALUE, not {pair!r}")
        given[name.strip()] = value
    return given


def _read_parameters(file: Path) -> dict[str, Any]:
    try:
        given = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{file} is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise UserError(f'{file} must hold one JSON object, such as {{"epochs": 3}}')
    return given
