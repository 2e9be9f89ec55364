"""The one exception that means: the user can fix this."""


class UserError(Exception):
    """Bad input or a missing prerequisite.

    The message is one clear sentence that says what is wrong, where, and what to do. The command
    line prints it without a traceback and exits with status 1.
    """
