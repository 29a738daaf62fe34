"""A step that takes its time, and is tried again."""

from kfp import dsl

from kfp_hybrid import images
from kfp_hybrid.targets import Target


@dsl.component(base_image=images.DEPLOYMENT, install_kfp_package=False)
def wait(seconds: int) -> None:
    """Wait.

    Args:
        seconds: How long.
    """
    import time

    print(f"waiting for {seconds} s", flush=True)
    time.sleep(seconds)
    print("done", flush=True)


def patience(target: Target) -> dsl.base_component.BaseComponent:
    """The pipeline for `target`."""

    @dsl.pipeline(name="patience")
    def pipeline(seconds: int = 1) -> None:
        """Wait, and try again when that fails.

        Args:
            seconds: How long.
        """
        target.configure(wait(seconds=seconds), retries=2, cache=False)

    return pipeline
