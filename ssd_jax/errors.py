"""The one exception that a user's mistake raises."""


class UserError(Exception):
    """Something the user can mend: a file, a box, an option.

    The message names it and says what to do. Programs print it and exit with 2, without a
    traceback; a notebook sees an ordinary exception.
    """
