"""What Machina answers, as Pydantic models. Fields that a newer Machina adds are kept.

The models cannot be changed: one that was read may be handed to several readers.
``model_dump()`` and ``model_dump_json()`` give plain data.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "Applied",
    "CallInfo",
    "Candidacy",
    "Entry",
    "Event",
    "Explanation",
    "Group",
    "Health",
    "Heartbeat",
    "Instance",
    "InstanceHealth",
    "JournalPage",
    "Lease",
    "Overview",
    "Page",
    "Progress",
    "Reason",
    "Service",
    "ServiceHealth",
    "Tool",
    "ToolResult",
    "WithheldTool",
]

T = TypeVar("T")


class Model(BaseModel):
    """What all models have in common."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)


class Reason(Model):
    """Why something is as it is."""

    code: str
    message: str = ""


class Health(Model):
    """The health of a service or an instance."""

    state: str
    reason: Reason
    since: datetime
    last_check: datetime | None = None
    response_time_ms: float | None = None
    consecutive_failures: int = 0
    flapping: bool = False
    uptime_percentage: float | None = None
    last_heartbeat: datetime | None = None
    lease_expires_at: datetime | None = None


class Instance(Model):
    """One place where a service runs. Its endpoint is the field of its kind: ``stdio``, ``http``, …"""

    id: str
    weight: int = 1
    region: str | None = None
    zone: str | None = None
    labels: dict[str, str] = {}
    admin_state: str = "enabled"
    health: Health | None = None
    protocol_version: str | None = None


class Service(Model):
    """A service: what was declared, and what is observed. Secrets are masked."""

    id: str
    name: str
    title: str | None = None
    description: str = ""
    version: str | None = None
    build_type: str = "other"
    origin: str = "community"
    required: bool = False
    build_priority: str = "MEDIUM"
    enabled: bool = True
    admin_state: str = "enabled"
    admin_reason: str | None = None
    tags: list[str] = []
    category: str | None = None
    capabilities: list[str] = []
    environment: str | None = None
    tenant: str | None = None
    access_level: str = "onyx"
    owner: str | None = None
    repository_url: str | None = None
    documentation_url: str | None = None
    health_policy: dict[str, Any] = {}
    routing_policy: dict[str, Any] = {}
    session_policy: dict[str, Any] = {}
    config: dict[str, Any] = {}
    env: dict[str, str] = {}
    instances: list[Instance] = []
    labels: dict[str, str] = {}
    metadata: dict[str, Any] = {}
    revision: int
    created_at: datetime
    updated_at: datetime
    updated_by: str
    status: str
    health: Health
    tool_count: int = 0


class Tool(Model):
    """A tool: its definition, word for word, and the service that offers it."""

    service: str
    name: str
    hash: str
    score: float | None = None
    title: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] = Field(alias="inputSchema")
    output_schema: dict[str, Any] | None = Field(default=None, alias="outputSchema")
    annotations: dict[str, Any] = {}
    suspicious: list[str] = []


class Page(Model, Generic[T]):
    """One page of an answer."""

    items: list[T]
    next_cursor: str | None = None
    revision: int

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[T]:  # type: ignore[override]
        return iter(self.items)


class Applied(Model):
    """What came of a batch of mutations."""

    revision: int
    services: list[Service]


class InstanceHealth(Model):
    """The health of one instance."""

    id: str
    location: str
    status: str
    admin_reason: str | None = None
    health: Health
    protocol_version: str | None = None
    process_id: int | None = None
    stderr_tail: str = ""


class WithheldTool(Model):
    """A tool that an instance publishes and that is not offered."""

    instance: str
    name: str | None = None
    hash: str | None = None
    reason: str


class ServiceHealth(Model):
    """The health of a service with that of each instance."""

    service: str
    status: str
    admin_reason: str | None = None
    health: Health
    instances: list[InstanceHealth]
    withheld_tools: list[WithheldTool] = []


class Candidacy(Model):
    """One instance, seen as a candidate for a call."""

    instance: str
    location: str
    standing: str
    eligible: bool
    reason: str
    health: str
    cost: float
    latency_ms: float
    in_flight: int
    weight: int
    picked: bool


class Explanation(Model):
    """Why a call would go where it would go."""

    service: str
    tool: str | None = None
    admin_state: str
    balancer: str
    repeatable: bool
    repeatable_reason: str
    candidates: list[Candidacy]


class CallInfo(Model):
    """How an answer was come by."""

    instance: str
    attempts: int
    duration_ms: float
    tried: list[dict[str, Any]] = []


class ToolResult(Model):
    """What a tool answered. ``is_error`` says that the tool itself failed: that is an answer too."""

    content: list[dict[str, Any]] = []
    structured_content: Any = Field(default=None, alias="structuredContent")
    is_error: bool = Field(default=False, alias="isError")
    meta: dict[str, Any] = Field(default={}, alias="_meta")

    @property
    def text(self) -> str:
        """Its text blocks, one after the other."""
        return "\n".join(str(block.get("text", "")) for block in self.content if block.get("type") == "text")

    @property
    def call(self) -> CallInfo:
        """How it was come by: instance, attempts, duration."""
        return CallInfo.model_validate(self.meta["dev.machina/call"])


class Progress(Model):
    """How far a call has come."""

    progress: float
    total: float | None = None
    message: str | None = None


class Event(Model):
    """One change. What it says beside these fields depends on ``type``.

    An event of the type ``resync`` says that the reader fell behind: read the state again and
    go on. It has none of the other fields.
    """

    type: str
    sequence: int | None = None
    revision: int | None = None
    at: datetime | None = None
    service: str | None = None


class Lease(Model):
    """The lease of an instance that registered itself."""

    ttl_ms: int
    expires_at: datetime
    renew_after_ms: int


class Heartbeat(Model):
    """What came of a heartbeat."""

    service: str
    instance: str | None = None
    lease: Lease | None = None
    health: str | None = None
    revision: int


class Overview(Model):
    """The registry in numbers."""

    revision: int
    services: int
    statuses: dict[str, int]
    instances: int
    tools: int
    dropped_journal_entries: int = 0
    self_preservation: bool = False


class Group(Model):
    """A group: what it selects of the registry for the hosts that connect to it."""

    name: str
    title: str | None = None
    description: str = ""
    tenant: str | None = None
    members: list[dict[str, Any]] = []
    mode: str = "flat"
    prefix: str = "always"
    revision: int
    created_at: datetime
    updated_at: datetime
    updated_by: str
    missing: list[str] = []
    tool_count: int = 0


class Entry(Model):
    """One entry of the journal. What it says beside these fields depends on ``kind``."""

    kind: str
    at: datetime
    service: str | None = None
    instance: str | None = None


class JournalPage(Model):
    """Some entries of the journal, newest first."""

    items: list[Entry]
    next_cursor: str | None = None
