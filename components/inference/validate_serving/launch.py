"""Starts the model server so that the kernel ends it when the process that asked for it dies, however that dies.

python -m kfp_hybrid.components.inference.validate_serving.launch PARENT_PID SERVER_ARGUMENT...
"""

import ctypes
import os
import runpy
import signal
import sys

SERVER = "kfp_hybrid.serving"
PR_SET_PDEATHSIG = 1  # of prctl(2); Linux only, which all images are


def main() -> None:
    """Become the server."""
    parent = int(sys.argv.pop(1))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel was told
        raise SystemExit(1)
    runpy.run_module(SERVER, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
