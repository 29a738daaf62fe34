"""Importing TensorFlow without its log lines."""

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Import TensorFlow without its own log lines, unless the user has set TF_CPP_MIN_LOG_LEVEL.

    Some lines ("Could not find cuda drivers") it writes before it reads that variable, so the file descriptor is
    diverted during the import; what was written comes out if the import fails.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"
    for name in ("absl", "tensorflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") != "3":
        yield
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as diverted:
        os.dup2(diverted.fileno(), 2)
        try:
            yield
        except BaseException:
            diverted.seek(0)
            os.write(stderr, diverted.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
