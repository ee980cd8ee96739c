"""Errors meant for the person at the keyboard: one sentence that says what to change."""


class UserError(ValueError):
    """Bad input or settings. The message says what is wrong, where, and what to change."""


class SourceError(UserError):
    """A model or dataset source cannot be had; the message names the setting to change."""


class DataError(UserError):
    """A data file is malformed; the message names the file and, where there is one, the line."""


class IntegrityError(UserError):
    """An artifact on disk is not what its manifest says."""


class MemoryLimitError(UserError):
    """A step needed more memory than it may have. Trying again would need as much: it is never retried."""
