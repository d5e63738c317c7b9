"""The one exception for a problem with the user's input, and the one warning."""


class ForetideError(Exception):
    """A mistake that the user can mend.

    The message is one line that says where (file, row, column or flag), what was found, what was
    expected, and what to do. The command line prints it and exits with 2; the dashboard shows it in place.
    """


class ForetideWarning(UserWarning):
    """Something that the user should know, but that does not stop the work."""
