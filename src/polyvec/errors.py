"""The exception tree: everything polyvec raises on purpose.

Each message says what was given, what is allowed and what to do about it.
The command line prints the message without a traceback and exits with ``exit_code``.
"""


class PolyvecError(Exception):
    """Base of all errors that polyvec raises on purpose."""

    exit_code = 1


class InputError(PolyvecError, ValueError):
    """A text, a row or an argument that cannot be used as it is."""

    exit_code = 2


class TooLongError(InputError):
    """A text with more tokens than the model reads, where cutting was not wanted.

    Attributes:
        fact: What is too long, without the advice, which is another one in the server's answers.
    """

    def __init__(self, fact: str, advice: str = "") -> None:
        super().__init__(f"{fact} {advice}".rstrip())
        self.fact = fact


class InputTypeError(InputError, TypeError):
    """A value of the wrong type where texts were expected."""


class ModelNotFoundError(PolyvecError):
    """No model of that name, or no file at that path."""


class ModelFileError(PolyvecError):
    """A model file that is missing, truncated, corrupt or of an unknown kind."""


class SpecError(PolyvecError):
    """The files do not state a fact that decides the vectors, or contradict one."""


class ChecksumError(PolyvecError):
    """A fetched file whose content is not the pinned one."""


class DownloadError(PolyvecError):
    """A file could not be fetched: no network, no such package, or a refusal."""


class DiskFullError(PolyvecError):
    """No room where a file was to be written; nothing half-written is left."""


class OutputError(PolyvecError):
    """A result cannot be written where it was asked for."""


class ResumeError(PolyvecError):
    """An interrupted output that does not belong to this input, model or settings."""


class MissingExtraError(PolyvecError):
    """An optional library is needed; the message names the pip command."""


class DeviceError(PolyvecError):
    """A device or a precision that this machine cannot run."""


class RemoteError(PolyvecError):
    """A server that embeds could not be reached, refused, or answered in another shape."""


class TrainingError(PolyvecError):
    """A training run whose loss or gradients are no numbers any more."""


class IndexMissingError(PolyvecError):
    """No search index where one was looked for; the message names the command that makes it."""


class IndexMismatchError(PolyvecError):
    """A search index of another model, cut or version; the message names what migrates it."""


class StorageError(PolyvecError):
    """Where an index is kept refused, is full, broken or out of reach; the message says more."""


class TurnLostError(PolyvecError):
    """Another run went on in this one's place, as it had not been heard of for too long."""


class TruncationWarning(UserWarning):
    """Some texts were longer than the model reads and were cut."""
