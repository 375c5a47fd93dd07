"""Questions to the native half, and what its answers are: both in JSON.

Nothing here asks: ``registry`` and ``sync`` do, each in its way. Pydantic is loaded with the first
answer, and not before.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .exceptions import invalid_field

if TYPE_CHECKING:
    from . import models

T = TypeVar("T")

#: A question in JSON, and how its answer is read.
Ask = tuple[bytes, Callable[[bytes], T]]

#: The largest number that a revision can have.
REVISION_MAX = 2**64 - 1

#: A record: a mapping, a Pydantic model, or JSON.
Record = Mapping[str, Any] | str | bytes | Any


def encoded(value: object, field: str) -> bytes:
    """``value`` in JSON."""
    try:
        return json.dumps(value, allow_nan=False, default=_plain).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise invalid_field(field, f"cannot be written as JSON: {error}") from error


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"a {type(value).__name__} is no JSON")


def plain(record: Record, field: str) -> object:
    """``record`` as what JSON can say."""
    if isinstance(record, (str, bytes)):
        try:
            return json.loads(record)
        except ValueError as error:
            raise invalid_field(field, f"is no JSON: {error}") from error
    if isinstance(record, Mapping) or hasattr(record, "model_dump"):
        return record
    raise invalid_field(field, f"must be a mapping, a model or JSON, not a {type(record).__name__}")


def options(config: Mapping[str, Any] | None, environment: Mapping[str, str] | None, monitor: bool) -> bytes:
    """How a Machina is opened."""
    said: dict[str, object] = {"environment": _mapping(environment, "environment"), "monitor": monitor}
    if config is not None:
        said["config"] = _mapping(config, "config")
    # One by one, so that what is no JSON is called by its name.
    return b"{%s}" % b", ".join(b'"%s": %s' % (name.encode(), encoded(value, name)) for name, value in said.items())


def _mapping(value: Mapping[str, Any] | None, field: str) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise invalid_field(field, f"must be a mapping, not a {type(value).__name__}")
    return dict(value)


def string(value: str, field: str) -> str:
    """``value``, if it is text that can be passed on."""
    if not isinstance(value, str):
        raise invalid_field(field, f"must be a string, not a {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise invalid_field(field, f"is no text: {error.reason}") from error
    return value


def strings(values: str | Iterable[str], field: str) -> list[str]:
    """``values`` as a list, if they are such text; one may be said by itself."""
    return [string(cast("str", value), field) for value in _several(values)]


def number(value: int, field: str, most: int) -> int:
    """``value``, if it is a whole number from 0 to ``most``."""
    try:
        whole = operator.index(value)
    except TypeError:
        raise invalid_field(field, f"must be a whole number, not a {type(value).__name__}") from None
    if not 0 <= whole <= most:
        raise invalid_field(field, f"must be from 0 to {most}")
    return whole


def revision(since: int | None) -> int | None:
    """Where a stream of events begins."""
    return None if since is None else number(since, "since", REVISION_MAX)


def check_callable(function: object, field: str) -> None:
    """Refuses what is there and cannot be called."""
    if function is not None and not callable(function):
        raise invalid_field(field, f"must be a function, not a {type(function).__name__}")


def milliseconds(timeout: float | timedelta | None) -> int | None:
    """A time limit as the native half takes it."""
    if timeout is None:
        return None
    try:
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else float(timeout)
        return math.ceil(seconds * 1000)
    except (TypeError, ValueError, OverflowError):
        raise invalid_field("timeout", "must be a number of seconds, or a timedelta") from None


def call(
    service: str,
    tool: str,
    arguments: Mapping[str, Any] | None,
    timeout: float | timedelta | None,
    idempotency_key: str | None,
    affinity_key: str | None,
    meta: Mapping[str, Any] | None,
) -> bytes:
    """A call with its circumstances."""
    asked: dict[str, Any] = {"service": service, "tool": tool}
    if arguments is not None:
        asked["arguments"] = arguments
    if timeout is not None:
        asked["timeout_ms"] = milliseconds(timeout)
    if idempotency_key is not None:
        asked["idempotency_key"] = idempotency_key
    if affinity_key is not None:
        asked["affinity_key"] = affinity_key
    if meta is not None:
        asked["meta"] = meta
    return encoded(asked, "arguments")


def principal(id: str, role: str, tenant: str | None, remote: bool) -> bytes:
    """Who acts."""
    return encoded({"id": id, "role": role, "tenant": tenant, "remote": remote}, "principal")


def _ask(question: str, asked: Mapping[str, Any], answer: Callable[[bytes], T]) -> Ask[T]:
    return encoded({question: asked}, question), answer


def get(service: str) -> Ask[models.Service]:
    return _ask("get", {"service": service}, a_service)


def find(
    text: str | None,
    healthy: bool | None,
    order: str | None,
    cursor: str | None,
    limit: int | None,
    filters: Mapping[str, Any],
) -> Ask[models.Page[models.Service]]:
    query: dict[str, Any] = {name: value for name, value in filters.items() if value is not None}
    for name in ("status", "tags", "capability", "build_type", "build_priority"):
        if name in query:
            query[name] = _several(query[name])
    if healthy is not None:
        if "status" in query:
            raise invalid_field("healthy", "says something about the status, and so does `status`")
        others = ["degraded", "unhealthy", "unknown", "disabled", "maintenance"]
        query["status"] = ["healthy"] if healthy else others
    if order is not None:
        order = string(order, "order")
        query["order"], query["descending"] = order.removeprefix("-"), order.startswith("-")
    for name, value in (("text", text), ("cursor", cursor), ("limit", limit)):
        if value is not None:
            query[name] = value
    return _ask("find", query, services)


def _several(values: object) -> list[object]:
    """``values`` as a list: one may be said by itself."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        return [values]
    return list(values)


def tools(service: str | None, cursor: str | None, limit: int | None) -> Ask[models.Page[models.Tool]]:
    return _ask("tools", {"service": service, "cursor": cursor, "limit": limit}, a_page_of_tools)


def tool(service: str, tool: str) -> Ask[models.Tool]:
    return _ask("tool", {"service": service, "tool": tool}, a_tool)


def find_tools(text: str, limit: int) -> Ask[list[models.Tool]]:
    return _ask("find_tools", {"text": text, "limit": limit}, several_tools)


def health(service: str) -> Ask[models.ServiceHealth]:
    return _ask("health", {"service": service}, a_health)


def check(service: str) -> Ask[models.ServiceHealth]:
    return _ask("check", {"service": service}, a_health)


def explain(service: str, tool: str | None) -> Ask[models.Explanation]:
    return _ask("explain", {"service": service, "tool": tool}, an_explanation)


def heartbeat(service: str, instance: str | None) -> Ask[models.Heartbeat]:
    return _ask("heartbeat", {"service": service, "instance": instance}, a_heartbeat)


def overview() -> Ask[models.Overview]:
    return _ask("overview", {}, an_overview)


def groups() -> Ask[list[models.Group]]:
    return _ask("groups", {}, several_groups)


def group(name: str) -> Ask[models.Group]:
    return _ask("group", {"name": name}, a_group)


def put_group(group: Record, expected: int | None, create_only: bool) -> Ask[models.Group]:
    asked = {"group": plain(group, "group"), "expected": expected, "create_only": create_only}
    return _ask("put_group", asked, a_group)


def remove_group(name: str, expected: int | None) -> Ask[int]:
    return _ask("remove_group", {"name": name, "expected": expected}, json.loads)


def journal(
    kind: str, service: str | None, instance: str | None, since: datetime | str | None, cursor: str | None, limit: int
) -> Ask[models.JournalPage]:
    asked = {
        "kind": kind, "service": service, "instance": instance, "since": since, "cursor": cursor, "limit": limit
    }  # fmt: skip
    return _ask("journal", asked, a_journal_page)


def apply(mutations: Iterable[Mapping[str, Any]]) -> Ask[models.Applied]:
    if isinstance(mutations, (str, bytes, Mapping)) or not isinstance(mutations, Iterable):
        raise invalid_field("mutations", f"must be a list of mutations, not a {type(mutations).__name__}")
    return _ask("apply", {"mutations": list(mutations)}, what_was_applied)


def one(mutation: str, body: Mapping[str, Any] | object) -> Ask[models.Service]:
    """One mutation, of which a service comes."""
    return _ask("apply", {"mutations": [{mutation: body}]}, the_one_service)


def deregister(name: str, expected: int | None) -> Ask[int]:
    return _ask("apply", {"mutations": [{"deregister": {"name": name, "expected": expected}}]}, the_revision)


def a_service(answer: bytes) -> models.Service:
    from .models import Service

    return Service.model_validate_json(answer)


def services(answer: bytes) -> models.Page[models.Service]:
    from .models import Page, Service

    return Page[Service].model_validate_json(answer)


def a_tool(answer: bytes) -> models.Tool:
    from .models import Tool

    return Tool.model_validate_json(answer)


def a_page_of_tools(answer: bytes) -> models.Page[models.Tool]:
    from .models import Page, Tool

    return Page[Tool].model_validate_json(answer)


def several_tools(answer: bytes) -> list[models.Tool]:
    from .models import Tool

    return [Tool.model_validate(tool) for tool in json.loads(answer)]


def a_health(answer: bytes) -> models.ServiceHealth:
    from .models import ServiceHealth

    return ServiceHealth.model_validate_json(answer)


def an_explanation(answer: bytes) -> models.Explanation:
    from .models import Explanation

    return Explanation.model_validate_json(answer)


def a_heartbeat(answer: bytes) -> models.Heartbeat:
    from .models import Heartbeat

    return Heartbeat.model_validate_json(answer)


def an_overview(answer: bytes) -> models.Overview:
    from .models import Overview

    return Overview.model_validate_json(answer)


def a_group(answer: bytes) -> models.Group:
    from .models import Group

    return Group.model_validate_json(answer)


def several_groups(answer: bytes) -> list[models.Group]:
    from .models import Group

    return [Group.model_validate(group) for group in json.loads(answer)]


def a_journal_page(answer: bytes) -> models.JournalPage:
    from .models import JournalPage

    return JournalPage.model_validate_json(answer)


def what_was_applied(answer: bytes) -> models.Applied:
    from .models import Applied

    return Applied.model_validate_json(answer)


def the_one_service(answer: bytes) -> models.Service:
    from .exceptions import Conflict

    applied = what_was_applied(answer)
    if not applied.services:
        raise Conflict("the service was removed meanwhile")
    return applied.services[0]


def the_revision(answer: bytes) -> int:
    return what_was_applied(answer).revision


def a_result(answer: bytes) -> models.ToolResult:
    from .models import ToolResult

    return ToolResult.model_validate_json(answer)


def some_events(answer: bytes) -> list[models.Event]:
    from .models import Event

    return [Event.model_validate(event) for event in json.loads(answer)]


def a_progress(answer: bytes) -> models.Progress:
    from .models import Progress

    return Progress.model_validate_json(answer)
