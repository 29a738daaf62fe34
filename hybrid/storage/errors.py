"""What goes wrong with stores, in one line each; a step and the command line show these as they are."""

from kfp_hybrid.step import StepError


class StorageError(StepError):
    """A store cannot be used, for a reason that the user can put right; never holds a credential."""


class NotFound(StorageError):
    """There is no such object or bucket."""


class Changed(StorageError):
    """An object is not, or no longer, what the caller expects it to be."""


class Damaged(StorageError):
    """The bytes that arrived are not those that were sent."""
