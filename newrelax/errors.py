"""Errors that a user can mend."""


class UserError(Exception):
    """Something the user asked for cannot be done; the message is one line: what was expected, what came, what to do."""
