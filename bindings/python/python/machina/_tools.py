"""Functions of the program as tools: what they take and give, and where they run.

An ``async def`` runs in the loop in which the Machina was opened, any other function in a thread of
its own. What a function raises is an answer that says ``is_error``, and is logged.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from . import _asking as asking
from ._threads import in_thread, own_loop
from .exceptions import Unavailable, invalid_field

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from . import _machina

_log = logging.getLogger("machina.tools")

#: How many calls of a function may at most run at once.
EXECUTIONS_MAX = 2**32 - 1

R = TypeVar("R")
Declared = TypeVar("Declared")
Withdrawn = TypeVar("Withdrawn")
Function = Callable[..., R]


class ToolContext:
    """What a tool may know of the call that it carries out: a parameter of this type gets it."""

    def __init__(self, reply: _machina.Reply) -> None:
        self._reply = reply

    def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """Tells the caller how far it has come; ``progress`` only ever grows."""
        step = {"progress": progress, "total": total, "message": message}
        self._reply.progress(asking.encoded(step, "progress"))


class Tool:
    """A function, its definition as a tool, and how its arguments and its answer are read."""

    def __init__(self, function: Function[Any], about: Mapping[str, Any]) -> None:
        if not callable(function):
            raise asking.invalid_field("function", "must be a function")
        self.function = function
        self.is_async = inspect.iscoroutinefunction(function)
        self.executions_max = asking.number(about.get("executions_max", 64), "executions_max", EXECUTIONS_MAX)
        self.context: str | None = None
        hints = _hints(function)
        self._arguments, schema = self._read_parameters(hints)
        self._answer, output = _read_answer(hints)
        description = about.get("description") or inspect.getdoc(function)
        annotations = {
            "readOnlyHint": about.get("read_only"),
            "idempotentHint": about.get("idempotent"),
            "destructiveHint": about.get("destructive"),
            "openWorldHint": about.get("open_world"),
        }
        annotations = {name: value for name, value in annotations.items() if value is not None}
        definition = {
            "name": about.get("name", getattr(function, "__name__", None)),
            "title": about.get("title"),
            "description": description,
            "inputSchema": schema,
            "outputSchema": output,
            "annotations": annotations or None,
            "tags": asking.strings(about.get("tags") or (), "tags") or None,
        }
        self.definition = {name: value for name, value in definition.items() if value is not None}

    def _read_parameters(self, hints: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        from pydantic import ConfigDict, Field, create_model

        fields: dict[str, Any] = {}
        for parameter in inspect.signature(self.function).parameters.values():
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                raise TypeError(f"the parameter `{parameter}` of a tool must have a name that callers can say")
            hint = hints.get(parameter.name, Any)
            if hint is ToolContext:
                self.context = parameter.name
                continue
            default = ... if parameter.default is parameter.empty else parameter.default
            # Under names of our own: Pydantic has names that a field must not have.
            fields[f"p{len(fields)}"] = (hint, Field(default, alias=parameter.name))
        model = create_model("Arguments", __config__=ConfigDict(extra="forbid"), **fields)
        schema = model.model_json_schema(by_alias=True)
        for unsaid in (schema, *schema.get("properties", {}).values()):
            unsaid.pop("title", None)
        return model, schema

    def arguments(self, arguments: bytes, reply: _machina.Reply) -> dict[str, Any]:
        """The arguments of a call, as the function takes them."""
        read = self._arguments.model_validate_json(arguments)
        taken = {field.alias: getattr(read, name) for name, field in type(read).model_fields.items()}
        if self.context is not None:
            taken[self.context] = ToolContext(reply)
        return taken

    def answer(self, answer: Any, reply: _machina.Reply) -> None:
        """Sends what the function gave."""
        from pydantic_core import to_json

        from .models import ToolResult

        if isinstance(answer, ToolResult):
            reply.result(answer.model_dump_json(by_alias=True, exclude_none=True, exclude_unset=True).encode())
        elif answer is None:
            reply.result(b'{"content": []}')
        else:
            reply.value(to_json(answer) if self._answer is None else self._answer.dump_json(answer, by_alias=True))

    def failed(self, error: BaseException, reply: _machina.Reply) -> None:
        """Sends what the function raised."""
        from pydantic import ValidationError

        if isinstance(error, ValidationError) and error.title == "Arguments":
            problems = [(".".join(map(str, one["loc"])), one["msg"]) for one in error.errors(include_url=False)]
            reply.fail("; ".join(f"arguments.{place}: {what}" for place, what in problems))
            return
        _log.error("the tool %s raised", self.definition["name"], exc_info=error)
        reply.fail(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)

    def run(self, arguments: bytes, reply: _machina.Reply) -> None:
        """Carries out a call, in the thread that this is."""
        try:
            self.answer(self.function(**self.arguments(arguments, reply)), reply)
        except BaseException as error:
            self.failed(error, reply)

    async def run_async(self, arguments: bytes, reply: _machina.Reply) -> None:
        """Carries out a call, in the loop that this is."""
        try:
            self.answer(await self.function(**self.arguments(arguments, reply)), reply)
        except (asyncio.CancelledError, KeyboardInterrupt) as error:
            # Not for the caller alone: a task that is cancelled ends so, and Ctrl-C is for the program.
            self.failed(error, reply)
            raise
        except GeneratorExit:
            # The loop is gone, and so is whoever asked.
            raise
        except BaseException as error:
            # The loop would let a SystemExit out, and end.
            self.failed(error, reply)


def _hints(function: Function[Any]) -> dict[str, Any]:
    from typing import get_type_hints

    return get_type_hints(function, include_extras=True)


def _read_answer(hints: Mapping[str, Any]) -> tuple[TypeAdapter[Any] | None, dict[str, Any] | None]:
    from pydantic import TypeAdapter

    from .models import ToolResult

    hint = hints.get("return", Any)
    if hint in (Any, None, type(None), ToolResult):
        return None, None
    adapter: TypeAdapter[Any] = TypeAdapter(hint)
    schema = adapter.json_schema(mode="serialization", by_alias=True)
    return adapter, schema if schema.get("type") == "object" else None


#: The loop in which coroutines run.
Loop = Callable[[], asyncio.AbstractEventLoop]


def loop_runner() -> Loop:
    """Coroutines run in the loop in which the Machina was opened."""
    loop = asyncio.get_running_loop()
    return lambda: loop


def thread_runner() -> Loop:
    """Coroutines run in a loop of their own, which the first of them starts: the program may have none."""
    return own_loop


class Place:
    """Where the functions of a Machina run. Knows no handle: what is attached is kept by that."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._running: set[asyncio.Task[None]] = set()

    def start(self, tool: Tool, arguments: bytes, reply: _machina.Reply) -> None:
        """Starts a call, and returns at once."""
        if not tool.is_async:
            in_thread(lambda: tool.run(arguments, reply))
        elif (loop := self._loop()).is_closed():
            reply.fail("the loop in which the Machina was opened is closed")
        else:
            loop.call_soon_threadsafe(self._begin, loop, tool, arguments, reply)

    def _begin(
        self, loop: asyncio.AbstractEventLoop, tool: Tool, arguments: bytes, reply: _machina.Reply
    ) -> None:
        task = loop.create_task(tool.run_async(arguments, reply))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

        def give_up() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(task.cancel)

        reply.on_given_up(give_up)


class Native:
    """The functions of one Machina."""

    def __init__(self, runner: Callable[[], Loop]) -> None:
        self._runner = runner
        self._attached: tuple[_machina.Handle, Place] | None = None
        self._early: list[tuple[str, Tool]] = []
        #: Services with functions that are to be declared before anything else is asked.
        self.undeclared: set[str] = set()

    def opened(self, handle: _machina.Handle) -> None:
        """Attaches what was made a tool before there was anything to attach it to."""
        self._attached = handle, Place(self._runner())
        for service, tool in self._early:
            self._attach(service, tool)
        self._early.clear()

    def lent(self, handle: _machina.Handle) -> Native:
        """Those of ``handle``, which someone else has of it: they run where these run."""
        assert self._attached is not None
        lent = Native(self._runner)
        lent._attached = handle, self._attached[1]
        return lent

    def decorator(
        self, service: str, about: Mapping[str, Any], eager: bool
    ) -> Callable[[Function[R]], Function[R]]:
        """What makes a function a tool of ``service``."""
        unknown = set(about) - {
            "name", "title", "description", "tags", "read_only", "idempotent", "destructive", "open_world",
            "executions_max",
        }  # fmt: skip
        if unknown:
            raise invalid_field(sorted(unknown)[0], "is nothing that can be said about a tool")
        asking.string(service, "service")

        def decorate(function: Function[R]) -> Function[R]:
            tool = Tool(function, about)
            if self._attached is None:
                self._early.append((service, tool))
            else:
                self._attach(service, tool)
            if eager:
                self.undeclared.add(service)
            return function

        return decorate

    def detach(self, service: str, tool: str) -> bool:
        """Takes a tool away."""
        if self._attached is None:
            raise Unavailable("it is not open")
        return self._attached[0].detach(service, asking.string(tool, "tool"))

    def _attach(self, service: str, tool: Tool) -> None:
        assert self._attached is not None
        handle, place = self._attached
        definition = asking.encoded(tool.definition, "definition")
        handle.attach(service, definition, tool.executions_max, functools.partial(place.start, tool), tool.is_async)


class NativeService(Generic[Declared, Withdrawn]):
    """The functions of this program that are the tools of one service."""

    def __init__(
        self,
        native: Native,
        name: str,
        declare: Callable[[str, bytes | None], Declared],
        withdraw: Callable[[str], Withdrawn],
    ) -> None:
        self.name = asking.string(name, "service")
        self._native, self._declare, self._withdraw = native, declare, withdraw

    def tool(self, function: Function[R] | None = None, **about: Any) -> Any:
        """Makes a function a tool, in the place of the one of its name if there is one.

        What it takes and gives is said by its annotations, what it does by its docstring; a parameter
        of the type :class:`ToolContext` is not part of either. ``about`` may have ``name``, ``title``,
        ``description``, ``tags``, ``read_only``, ``idempotent``, ``destructive``, ``open_world`` and
        ``executions_max`` (how many calls run at once: 64 by default).
        """
        decorator = self._native.decorator(self.name, about, eager=False)
        return decorator if function is None else decorator(function)

    def remove(self, tool: str) -> bool:
        """Takes a tool away; says whether it was there."""
        return self._native.detach(self.name, tool)

    def register(self, service: asking.Record | None = None) -> Declared:
        """Declares the service, as ``service`` says where it is given, and makes its tools known."""
        if service is None:
            return self._declare(self.name, None)
        return self._declare(self.name, asking.encoded(asking.plain(service, "service"), "service"))

    def withdraw(self) -> Withdrawn:
        """Takes all its functions away. The declaration stays."""
        return self._withdraw(self.name)
