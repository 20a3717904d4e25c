"""A task in a worker's hands, to Celery."""

from __future__ import annotations

from typing import Any

from celery.worker.request import Request
from kombu.transport import virtual


class TaskRequest(Request):  # type: ignore[misc]  # Celery has no types
    """Gives its place free even where the broker could not be told of its end.

    On Redis kombu keeps the place taken then (5.7), and a worker with all places taken asks for nothing more: it would never see that the
    broker is back. What was not acknowledged comes again, and finds nothing left to do.
    """

    acknowledged: bool

    def acknowledge(self) -> None:
        if not self.acknowledged:
            self._on_ack(_Unheard(self._message), self._connection_errors)
            self.acknowledged = True

    def reject(self, requeue: bool = False) -> None:
        if not self.acknowledged:
            self._on_reject(_Unheard(self._message), self._connection_errors, requeue)
            self.acknowledged = True


class _Unheard:
    """The log that kombu tells so."""

    def __init__(self, message: Any) -> None:
        self._message = message

    def critical(self, *_: object, exc_info: bool = False) -> None:
        qos = getattr(self._message.channel, "qos", None)
        if isinstance(qos, virtual.QoS):
            virtual.QoS.ack(qos, self._message.delivery_tag)
