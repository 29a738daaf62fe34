"""The smallest useful pipeline: it proves an installation, or a project, in a minute."""

from kfp import dsl

from kfp_hybrid import images
from kfp_hybrid.targets import Target


@dsl.component(base_image=images.DEPLOYMENT, install_kfp_package=False)
def concatenate(first: str, second: str, joined: dsl.Output[dsl.Artifact]) -> str:
    """Put two texts together.

    Args:
        first: The first text.
        second: The second text.

    Returns:
        joined: A file with both, which proves that steps can write to the pipeline root.
        Output: Both, with a space between them.
    """
    text = f"{first} {second}"
    print(text)
    with open(joined.path, "w", encoding="utf-8") as file:
        file.write(text)
    return text


@dsl.component(base_image=images.DEPLOYMENT, install_kfp_package=False)
def reverse(text: dsl.Input[dsl.Artifact]) -> str:
    """Turn a text round.

    Args:
        text: A file with any text, which proves that steps can read what others wrote.

    Returns:
        The text from its end to its beginning.
    """
    with open(text.path, encoding="utf-8") as file:
        reversed_text = file.read()[::-1]
    print(reversed_text)
    return reversed_text


def hello(target: Target) -> dsl.base_component.BaseComponent:
    """The pipeline for `target`."""

    @dsl.pipeline(name="hello", display_name="Hello")
    def pipeline(first: str = "hello", second: str = "world") -> str:
        """Put two texts together and turn the result round: proves that images are found and that steps share files.

        Args:
            first: The first text.
            second: The second text.

        Returns:
            The reversed text.
        """
        joined = target.configure(concatenate(first=first, second=second), cache=False).outputs["joined"]
        return target.configure(reverse(text=joined), cache=False).output

    return pipeline
