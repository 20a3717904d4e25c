"""The broker as both ends have it: Celery's application, and what is sent through it. On Redis or RabbitMQ, by the URL."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self

from amqp.exceptions import MessageNacked
from celery import Celery
from kombu import Connection, Exchange, Queue
from kombu.exceptions import OperationalError

from core import tracing
from core.errors import Unavailable
from watcher.queue.place import BrokerPlace
from watcher.queue.tasks import Task

QUEUE = "imagesearch.ingest"
TASK = "imagesearch.ingest"

_VISIBILITY_S = 3600
"""After so long Redis gives a task that nobody acknowledged to another worker. A task waits no longer than an outage lasts, and a dead
worker's images are sent anew when their lease is over; until then nobody looks at it."""

_SOCKET_TIMEOUT_S = 10.0
_CONNECT_TIMEOUT_S = 5.0
_SENDER: dict[str, Any] = {"connect_timeout": _CONNECT_TIMEOUT_S, "heartbeat": 0}
"""A sender that is idle beats for nobody, and RabbitMQ would cut it off for that; what hangs it notices by its time-outs."""

_REFUSALS = frozenset({403, 406, 530})
_LEVELS = 3
_RETRY_AFTER_S = 1.0


def celery_of(place: BrokerPlace) -> Any:
    """Celery, with what both ends must agree on. Nothing is stored of a task: what became of it stands in the ledger."""
    app = Celery("imagesearch", broker=place.url, set_as_current=False)
    app.conf.update(
        task_queues=[_queue(place)],
        task_default_queue=QUEUE,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_enable_prefetch_count_reduction=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=_CONNECT_TIMEOUT_S,
        broker_transport_options=_transport(place),
    )
    return app


class Broker:
    """For who sends. An async context manager; the broker itself may come later. Calls run on a thread of its own."""

    def __init__(self, place: BrokerPlace) -> None:
        self._place = place
        self._app = celery_of(place)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="broker")
        self._connection: Connection | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._leave)
        self._thread.shutdown()

    async def send(self, tasks: Sequence[Task]) -> int:
        """In this order, each with a trace of its own. Returns how many the broker has: fewer where it went away on the way."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._send, tasks)

    async def waiting(self) -> int:
        """Tasks that no worker has yet. Raises Unavailable."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._waiting)

    def _send(self, tasks: Sequence[Task]) -> int:
        sent = 0
        with suppress(Unavailable), self._joined() as channel:
            producer = self._app.amqp.Producer(channel, auto_declare=False)
            for task in tasks:
                arguments, urgency = (task.image_id, tracing.begun().header), _urgency(self._place, task.priority)
                self._app.send_task(TASK, arguments, queue=QUEUE, priority=urgency, producer=producer, retry=False, declare=[])
                sent += 1
        return sent

    def _waiting(self) -> int:
        with self._joined() as channel:
            return int(_queue(self._place)(channel).queue_declare().message_count)

    @contextmanager
    def _joined(self) -> Iterator[Any]:
        """A channel; another connection where the last one was lost. Raises Unavailable."""
        is_new = self._connection is None
        connection = self._connection or self._app.connection_for_write(**_SENDER, transport_options=_timeouts(self._place))
        self._connection = connection
        try:
            connection.connect()  # or `default_channel` would wait for it for ever
            if is_new:  # what is sent to a queue that nobody made yet RabbitMQ takes, and drops
                _queue(self._place)(connection.default_channel).queue_declare()
            yield connection.default_channel
        except (OperationalError, MessageNacked, *connection.connection_errors, *connection.channel_errors) as error:
            self._leave()
            raise Unavailable(_why(error), retry_after_s=_RETRY_AFTER_S) from error

    def _leave(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.collect(_CONNECT_TIMEOUT_S)


def _queue(place: BrokerPlace) -> Queue:
    """On the exchange that every broker has, so that nothing but the queue itself can be lost."""
    arguments = None if place.is_redis else {"x-max-priority": _LEVELS - 1}
    return Queue(QUEUE, Exchange(""), routing_key=QUEUE, queue_arguments=arguments)


def _urgency(place: BrokerPlace, priority: int) -> int:
    """What is new before the backfill, and suspects and what can be found already after it. On Redis 0 comes first, elsewhere last."""
    level = min(max(priority, -1), 1) + 1
    return _LEVELS - 1 - level if place.is_redis else level


def _timeouts(place: BrokerPlace) -> dict[str, object]:
    """Of who sends: a worker waits for its next task as long as that takes."""
    return {} if place.is_redis else {"read_timeout": _SOCKET_TIMEOUT_S, "write_timeout": _SOCKET_TIMEOUT_S}


def _why(error: BaseException) -> str:
    """Without what RabbitMQ refuses by its own word (a login, a host, a queue that was made otherwise), it is away."""
    refused = getattr(error, "reply_code", None) in _REFUSALS
    return f"the broker refuses: {getattr(error, 'reply_text', '')}" if refused else "the broker does not answer now"


def _transport(place: BrokerPlace) -> dict[str, object]:
    if not place.is_redis:
        return {"confirm_publish": True}
    return {
        "visibility_timeout": _VISIBILITY_S,
        "priority_steps": list(range(_LEVELS)),
        "socket_timeout": _SOCKET_TIMEOUT_S,
        "socket_connect_timeout": _CONNECT_TIMEOUT_S,
        "socket_keepalive": True,
        "health_check_interval": 10,
    }
