"""End a canary: give the new model everything, or take it back."""

from kfp import dsl

from kfp_hybrid.targets import Target


def shift_traffic(target: Target) -> dsl.base_component.BaseComponent:
    """The pipeline for `target`."""

    @dsl.pipeline(name="shift-traffic", display_name="Promote or roll back a model")
    def pipeline(service: str, action: str = "promote") -> None:
        """End a canary: give the newest model of a service all requests, or go back to the one before.

        Args:
            service: The name of the service.
            action: promote gives the newest model all requests; rollback gives them to the one before.
        """
        target.shift_traffic(service=service, action=action)

    return pipeline
