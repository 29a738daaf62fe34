"""Finding and reading `kfp-hybrid.toml`."""

import difflib
import json
import logging
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
import pydantic
from pydantic_core import ErrorDetails

from kfp_hybrid.errors import UserError
from kfp_hybrid.profiles.models import Profile, ProfileFile, Resources

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE_NAME = "kfp-hybrid.toml"
VARIABLE = "KFP_HYBRID_CONFIG"
_MESSAGES = {
    "missing": "is missing",
    "string_type": "must be text in quotes",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "union_tag_not_found": "is missing",
}


@dataclass(frozen=True)
class Profiles:
    """The targets and resources of one file, or the built-in ones.

    Attributes:
        file: Where they come from; None when there is no file.
        targets: The targets by name; `local` is always among them.
        resources: What steps get, by name.
    """

    file: Path | None
    targets: dict[str, Profile]
    resources: dict[str, Resources]

    def target(self, name: str) -> Profile:
        """The target `name`.

        Raises:
            UserError: there is no such target.
        """
        if name not in self.targets:
            where = self.file or f"the built-in profiles (there is no {FILE_NAME} here)"
            close = difflib.get_close_matches(name, self.targets, 1)
            hint = f"did you mean {close[0]}?" if close else f"it has: {', '.join(self.targets)}"
            raise UserError(f"there is no target {name} in {where}; {hint}")
        return self.targets[name]

    def resources_for(self, name: str) -> Resources:
        """What a step gets whose pipeline asks for the resources `name`.

        Resources only tune, so a file may leave them out: the step then gets what the platform gives by default.
        """
        if name not in self.resources and self.resources:
            logging.warning(
                "%s has no [resources.%s], only: %s; steps that ask for it get the platform's default",
                self.file, name, ", ".join(self.resources),
            )  # fmt: skip
        return self.resources.get(name, Resources())


def load(path: Path | None = None) -> Profiles:
    """Read the profiles.

    Args:
        path: The file to read. When left out: the file that `$KFP_HYBRID_CONFIG` names, else `kfp-hybrid.toml` in the
            current folder, else in the user's configuration folder; without any, only the target `local` is there.

    Raises:
        UserError: the file cannot be read or something in it is wrong; one line that names file, line and key.
    """
    file = path or find()
    if file is None:
        return Profiles(None, ProfileFile().targets, {})
    try:
        text = file.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
        data = tomllib.loads(text)
    except OSError as error:
        raise UserError(f"cannot read the profiles in {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{file} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{file} is not TOML: {error}") from None
    try:
        content = ProfileFile.model_validate(data, context={"folder": file.absolute().parent})
    except pydantic.ValidationError as error:
        raise UserError(_explain(error, file, text, data)) from None
    return Profiles(file, content.targets, content.resources)


def find() -> Path | None:
    """The file that profiles are read from when no path is given; None when there is none."""
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser()
    usual = Path(FILE_NAME), platformdirs.user_config_path("kfp-hybrid") / FILE_NAME
    return next((file for file in usual if file.is_file()), None)


def _explain(error: pydantic.ValidationError, file: Path, text: str, data: dict[str, Any]) -> str:
    """The first of the errors in one line. Values are not repeated: one may be a secret in the wrong place."""
    first = error.errors(include_url=False, include_input=False)[0]
    keys = _keys(first, data)
    line = _line(text, keys)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{file}{f', line {line}' if line else ''}: {_dotted(keys)}: {_message(first)}{more}"


def _message(error: ErrorDetails) -> str:
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if error["type"] == "union_tag_invalid":
        return f"must be one of: {error['ctx']['expected_tags']}"
    return _MESSAGES.get(error["type"]) or error["msg"].replace("Input should be", "must be")


def _keys(error: ErrorDetails, data: Any) -> list[str | int]:
    """The path of keys in the file to what an error is about."""
    keys: list[str | int] = []
    for part in error["loc"]:
        here = data.get("kind") if isinstance(data, dict) else None
        if part == "[key]" or (part == here and part not in data):
            continue  # pydantic's own: the key of a dictionary, the member of a union
        keys.append(part)
        data = data[part] if _has(data, [part]) else None
    if error["type"].startswith("union_tag"):
        keys.append("kind")
    elif "key" in error.get("ctx", {}):
        keys.append(error["ctx"]["key"])
    return keys


def _has(data: Any, keys: Sequence[str | int]) -> bool:
    try:
        for key in keys:
            data = data[key]
    except (KeyError, IndexError, TypeError):
        return False
    return True


def _line(text: str, keys: Sequence[str | int]) -> int | None:
    """The line on which the statement begins that sets the keys, or the innermost table around them that there is.

    tomllib tells no lines, but the beginning of a file up to the end of a statement is TOML too; so the statement is
    the one without which the keys are not there yet.
    """
    while keys and not _has(tomllib.loads(text), keys):
        keys = keys[:-1]
    if not keys:
        return None
    lines = text.split("\n")
    start = 1
    for end in range(1, len(lines) + 1):
        try:
            data = tomllib.loads("\n".join(lines[:end]))
        except tomllib.TOMLDecodeError:  # in the midst of a statement
            continue
        if _has(data, keys):
            return start
        start = end + 1
    return None


def _dotted(keys: Sequence[str | int]) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{toml_key(key)}" for key in keys).removeprefix(".")


def toml_key(key: str) -> str:
    """A key as TOML writes it: in quotes when it has to be."""
    return key if re.fullmatch(r"[-\w]+", key, re.ASCII) else json.dumps(key, ensure_ascii=False)
