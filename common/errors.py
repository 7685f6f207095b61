"""The one kind of error that is the user's to mend."""


class UserError(Exception):
    """Something the user can put right: printed as one line, exit code 2."""
