"""Models by users: a module with `build_model(preprocessing, hyperparameters)`, given as text, file or package path.

An error in the user's code becomes one line with the module, the line and what went wrong. No TensorFlow
is imported here, so that a syntax error is reported before it.
"""

import importlib
import inspect
import linecache
import sys
import traceback
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfp_hybrid.step import StepError

FUNCTION = "build_model"
INLINE = "<module>"


class UserModule:
    """A user's module that defines `build_model`.

    Attributes:
        name: what error messages call it.
        source: its text; for a package path known after `run`.
        file: its file name in tracebacks; for a package path known after `run`.
    """

    def __init__(self, module: str):
        """Find a user's module and check its syntax; nothing of it is run.

        Args:
            module: its source text, the path of a .py file, or its path in a package ("my_package.my_module").

        Raises:
            StepError: there is no such file, or its syntax is wrong.
        """
        self._module: types.ModuleType | None = None
        if "\n" in module or f"def {FUNCTION}" in module:
            self.name, self.source = INLINE, module
        elif module.endswith(".py"):
            self.name, self.source = Path(module).name, _read(module)
        elif all(part.isidentifier() for part in module.split(".")):
            self.name, self.source = module, ""
        else:
            raise StepError(
                f"parameter module is {module[:80]!r}; give source text with {FUNCTION}, a .py file, or a package path"
            )
        self.file = self.name
        try:
            compile(self.source, self.file, "exec")
        except SyntaxError as error:
            raise StepError(f"module {self.name}, line {error.lineno}: {error.msg}") from None

    def run(self) -> None:
        """Run the module's top level.

        Raises:
            StepError: it raises, is not installed, or has no `build_model`.
        """
        self._module = self._execute() if self.source else self._import()
        if not callable(getattr(self._module, FUNCTION, None)):
            raise StepError(f"module {self.name} has no function {FUNCTION}(preprocessing, hyperparameters)")

    def build_model(self, preprocessing: Any, hyperparameters: Mapping[str, Any]) -> Any:
        """Call the user's `build_model`.

        Raises:
            StepError: it raises; with the line.
        """
        try:
            return getattr(self._module, FUNCTION)(preprocessing, dict(hyperparameters))
        except StepError:
            raise
        except Exception as error:
            raise user_error(self.name, self.file, error) from error

    def _execute(self) -> types.ModuleType:
        module = types.ModuleType("kfp_hybrid_user_module")
        module.__file__ = self.file
        sys.modules[module.__name__] = module  # where dataclasses and Keras look a class's module up
        linecache.cache[self.file] = (len(self.source), None, self.source.splitlines(keepends=True), self.file)
        try:
            exec(compile(self.source, self.file, "exec"), module.__dict__)  # noqa: S102  this is what the user asked for
        except Exception as error:
            raise user_error(self.name, self.file, error) from error
        return module

    def _import(self) -> types.ModuleType:
        try:
            module = importlib.import_module(self.name)
        except ModuleNotFoundError as error:
            if error.name and f"{self.name}.".startswith(f"{error.name}."):
                raise StepError(
                    f"module {self.name} is not installed in this image; add it, or give `module` as text or as a file"
                ) from None
            raise user_error(self.name, "", error) from error
        except SyntaxError as error:
            raise StepError(f"module {self.name}: {error.filename}, line {error.lineno}: {error.msg}") from None
        except Exception as error:
            raise user_error(self.name, "", error) from error
        self.file = module.__file__ or self.name
        self.source = inspect.getsource(module)
        return module


def user_error(name: str, file: str, error: Exception) -> StepError:
    """One line about an exception in user code: the module, the user's own line, and what went wrong.

    Args:
        name: name of the module.
        file: its file name in tracebacks; empty when only the innermost line is known.
        error: the exception.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == file] or frames[-1:]
    text = str(error)
    if text.startswith("in user code:"):  # what AutoGraph makes of it: the traceback, then the error
        text = text.rpartition(f"{type(error).__name__}: ")[2]
    what = " ".join(text.split()) or "no message"
    return StepError(f"module {name}, line {own[-1].lineno}: {type(error).__name__}: {what[:500]}")


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StepError(f"parameter module: {path} cannot be read: {error}") from None
