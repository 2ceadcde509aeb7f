"""What can go wrong in the operator's shell.

    OperatorError
    ├── SettingsError          a setting is wrong: says which, what was found, what is allowed
    ├── LeaseLost              another replica leads, or may: this one must stop at once
    ├── NotOurs                an object that the operator would write belongs to someone else
    ├── NotMigrated            stored resources could not be brought to the version of now: says why
    └── ApiError               the API server said no, or nothing
        ├── NotFound           404: the object is not there
        ├── NotServed          404: the server does not know the resource (a missing CRD)
        ├── Conflict           409: someone else wrote in between
        │   └── AlreadyExists
        ├── Gone               410: a list or watch is too old to go on
        ├── Invalid            422 or 400: the server refuses the object as it is
        ├── Forbidden          401 or 403: the operator may not do this
        └── Unreachable        no answer, 429 or 5xx, after retries

Messages are for logs, Events and conditions: they name the object and never quote a Secret's content.
"""

from __future__ import annotations


class OperatorError(Exception):
    """Base of all errors of the operator."""


class SettingsError(OperatorError):
    """The operator's settings are wrong. The message holds one line per fault."""


class LeaseLost(OperatorError):
    """This process leads no longer."""


class NotOurs(OperatorError):
    """An object has the name of one that the operator would write, and not its labels."""


class NotMigrated(OperatorError):
    """Resources may be stored in an older version still; nothing was taken off the definition."""


class ApiError(OperatorError):
    """The API server refused a request, or did not answer.

    Args:
        what: the request in words, e.g. `create RayCluster tradewind/default-1a2b3c4d`.
        status: HTTP status; 0 where there was no answer.
        reason: Kubernetes' word for it, e.g. `AlreadyExists`; may be empty.
        message: what the server said; empty where it must not be repeated.
    """

    def __init__(self, what: str, status: int, reason: str = "", message: str = "") -> None:
        said = message or reason or "no answer"
        super().__init__(f"{what}: {said}" + (f" ({status})" if status else ""))
        self.what = what
        self.status = status
        self.reason = reason
        self.message = message


class NotFound(ApiError):
    """The object is not there."""


class NotServed(ApiError):
    """The server does not know the resource."""


class Conflict(ApiError):
    """Someone else wrote the object in between."""


class AlreadyExists(Conflict):
    """An object of that name is there already."""


class Gone(ApiError):
    """A list or a watch is too old to go on."""


class Invalid(ApiError):
    """The server refuses the object as it is."""


class Forbidden(ApiError):
    """The operator may not do this."""


class Unreachable(ApiError):
    """No answer, or one that asks to try later, after retries."""

    retry_after_s: float | None = None
    """Seconds that the server asked to wait."""
