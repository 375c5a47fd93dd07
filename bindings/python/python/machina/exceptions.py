"""What can go wrong, as exceptions: one class for each kind of error of Machina.

Each has ``code`` (the stable word of ``docs/reference/errors.md``), ``message`` and
``context``: what is known of the failure, such as ``problems`` (the wrong fields),
``service``, ``instance``, ``attempts`` and ``outcome`` (``not_executed``, ``unknown`` or
``executed``) of a call.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

__all__ = [
    "Conflict",
    "Forbidden",
    "Internal",
    "Invalid",
    "Lost",
    "MachinaError",
    "NotFound",
    "Overloaded",
    "Rejected",
    "Timeout",
    "Unauthenticated",
    "Unavailable",
    "Unreachable",
    "Unsupported",
]


class MachinaError(Exception):
    """The error of every operation of Machina."""

    code: ClassVar[str] = "internal"
    message: str
    context: dict[str, Any]

    def __init__(self, message: str = "", context: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.context = context or {}

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.context)

    @property
    def retry_after(self) -> float | None:
        """After how many seconds it makes sense to try again, where that is known."""
        after = self.context.get("retry_after_ms")
        return None if after is None else after / 1000


class Invalid(MachinaError, ValueError):
    """A record, query or argument is malformed; ``context["problems"]`` names the fields."""

    code = "invalid"


class Unauthenticated(MachinaError, PermissionError):
    """The caller did not say who it is."""

    code = "unauthenticated"


class Forbidden(MachinaError, PermissionError):
    """The caller may not do this."""

    code = "forbidden"


class NotFound(MachinaError, LookupError):
    """There is no such service, tool or instance."""

    code = "not_found"


class Conflict(MachinaError):
    """A precondition failed: the name is taken, or the revision is another."""

    code = "conflict"


class Unavailable(MachinaError, ConnectionError):
    """No instance can take the call now, or the handle is closed."""

    code = "unavailable"


class Unreachable(MachinaError, ConnectionError):
    """Nothing was sent: it may always be tried again."""

    code = "unreachable"


class Lost(MachinaError, ConnectionError):
    """It was sent, and the outcome is unknown."""

    code = "lost"


class Timeout(MachinaError, TimeoutError):
    """It was sent, and no answer came in time."""

    code = "timeout"


class Overloaded(MachinaError):
    """The other side, or a local limit, says slow down: see ``retry_after``."""

    code = "overloaded"


class Rejected(MachinaError):
    """The instance answered with a protocol error."""

    code = "rejected"


class Unsupported(MachinaError):
    """This build, store or kind of Machina cannot do it."""

    code = "unsupported"


class Internal(MachinaError):
    """A bug, or a broken store."""

    code = "internal"


_BY_CODE: dict[str, type[MachinaError]] = {
    kind.code: kind
    for kind in (
        Invalid,
        Unauthenticated,
        Forbidden,
        NotFound,
        Conflict,
        Unavailable,
        Unreachable,
        Lost,
        Timeout,
        Overloaded,
        Rejected,
        Unsupported,
        Internal,
    )
}


def _of(code: str, message: str, context: bytes) -> MachinaError:
    """The exception of an error of the native half."""
    return _BY_CODE.get(code, MachinaError)(message, json.loads(context))


def invalid_field(field: str, detail: str) -> Invalid:
    """An ``Invalid`` for one field: says where, and what would be right."""
    return Invalid(f"{field}: {detail}", {"problems": [{"field": field, "detail": detail}]})
