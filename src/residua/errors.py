"""The one exception for problems that a user can solve; the command line prints its message."""


class ResiduaError(Exception):
    """A problem in the user's input, files or machine.

    The message names the file or value, what was expected and what to do. The command line prints
    it without a traceback and exits with status 1, and a notebook shows it alone; in Python it is
    an ordinary exception.
    """

    def _render_traceback_(self) -> list[str]:
        """The lines that a notebook shows."""
        return [f"{type(self).__name__}: {self}"]


class UsageError(ResiduaError):
    """An option or argument that is wrong whatever the files and the machine; exit status 2.

    A class that the network does not have, or a GPU that is missing, is a ResiduaError.
    """


class UnreadableImages(ResiduaError):  # noqa: N818 - it names what was found
    """Images cannot be read where each must be. count: of these. first: path and reason of one."""

    def __init__(self, message: str, count: int, first: tuple[str, str]) -> None:
        super().__init__(message)
        self.count, self.first = count, first
