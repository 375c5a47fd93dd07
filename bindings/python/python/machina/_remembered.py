"""Services as they were last read: what has not changed is not read again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _asking as asking

if TYPE_CHECKING:
    from . import _machina, models

#: How many services are remembered.
REMEMBERED_MAX = 1024


class Remembered:
    """What was read of a registry in this process, by the name it was asked for."""

    def __init__(self) -> None:
        self._services: dict[str, tuple[_machina.Told, models.Service]] = {}

    def get(self, handle: _machina.Handle, name: str) -> models.Service:
        """The service of this name."""
        known = self._services.get(name) if type(name) is str else None
        looked = handle.look(name, None if known is None else known[0])
        if looked is None:
            assert known is not None
            return known[1]
        told, answer = looked
        service = asking.a_service(answer)
        if len(self._services) >= REMEMBERED_MAX:
            self._services.clear()
        self._services[name] = told, service
        return service
