"""What a user did or has that cannot be used, as a sentence; the command line prints it."""


class ResiduaError(Exception):
    """A problem in the user's input, files or machine.

    The message names the file, the value, what was expected and what to do. The command line prints
    it without a traceback and exits with status 1; from Python it is an ordinary exception.
    """
