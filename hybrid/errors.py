"""The error that a user can put right."""


class UserError(Exception):
    """One line that says what is wrong, where, and what to do next; the command line shows it without a traceback."""
