"""The smallest useful pipeline: it proves an installation, or a project, in a minute."""

from kfp import dsl

from kfp_hybrid import images
from kfp_hybrid.targets import Target


@dsl.component(base_image=images.DEPLOYMENT, install_kfp_package=False)
def concatenate(first: str, second: str) -> str:
    """Put two texts together.

    Args:
        first: The first text.
        second: The second text.

    Returns:
        Both, with a space between them.
    """
    print(f"{first} {second}")
    return f"{first} {second}"


@dsl.component(base_image=images.DEPLOYMENT, install_kfp_package=False)
def reverse(text: str) -> str:
    """Turn a text round.

    Args:
        text: Any text.

    Returns:
        The text from its end to its beginning.
    """
    print(text[::-1])
    return text[::-1]


def hello(target: Target) -> dsl.base_component.BaseComponent:
    """The pipeline for `target`."""

    @dsl.pipeline(name="hello", display_name="Hello")
    def pipeline(first: str = "hello", second: str = "world") -> str:
        """Put two texts together and turn the result round: proves that images are found and that steps run.

        Args:
            first: The first text.
            second: The second text.

        Returns:
            The reversed text.
        """
        joined = target.configure(concatenate(first=first, second=second), cache=False)
        return target.configure(reverse(text=joined.output), cache=False).output

    return pipeline
