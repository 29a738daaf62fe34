"""`python -m kfp_hybrid.serving MODEL [options]`."""

import sys

from kfp_hybrid.serving.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
