"""Batch prediction on this machine; see `command`."""

from kfp_hybrid.components.inference.predict_batch.command import arguments, run

if __name__ == "__main__":
    run(*arguments())
