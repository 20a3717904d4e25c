"""A RabbitMQ for the tests, from Debian's package: a node of its own on loopback, in a temporary folder, and gone afterwards."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from tests.e2e.product import wait_for
from tests.ports import free_ports
from tests.queue.rig import BrokerServer

_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_QUEUE = "imagesearch.ingest"
_PATIENCE_S = 240.0


def why_not() -> str | None:
    """Why there can be none here."""
    if not _SERVER.exists() or shutil.which("epmd") is None:
        return "needs RabbitMQ: apt-get install --no-install-recommends rabbitmq-server"
    try:
        import celery  # noqa: F401
    except ImportError:
        return "needs Celery: pip install '.[queue]'"
    return None


class Rabbit(BrokerServer):
    """Its queues outlive it, as messages do that were confirmed."""

    def __init__(self, folder: Path, port: int, names_port: int, own_port: int) -> None:
        self.port = port
        self.url = f"amqp://guest:guest@127.0.0.1:{port}//"
        config = folder / "rabbitmq.conf"
        config.write_text(
            f"listeners.tcp.1 = 127.0.0.1:{port}\nlog.console = true\nlog.console.level = warning\nlog.file = false\n"
        )
        environment = {
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(names_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"tests{port}@localhost",
            "RABBITMQ_DIST_PORT": str(own_port),
            "RABBITMQ_MNESIA_BASE": str(folder),
            "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_CONFIG_FILE": str(config),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_ALLOW_INPUT": "1",  # so that the process is the node itself, not a shell beside it
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1",
        }
        super().__init__(folder / "log", str(_SERVER), "-noinput", environment=environment)

    def start(self) -> Self:
        super().start()
        wait_for("rabbitmq", self._answers, timeout_s=_PATIENCE_S)
        return self

    def _answers(self) -> bool:
        assert self.is_running, self.log.read_text()
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0) as asking:
            asking.settimeout(10)
            asking.sendall(b"AMQP\x00\x00\x09\x01")
            return bool(asking.recv(1))
        return False

    def flush(self) -> None:
        """The queue is gone, as on a new broker."""
        from kombu import Connection

        with Connection(self.url) as connection:
            connection.default_channel.queue_delete(_QUEUE)

    def received(self) -> list[list[str]]:
        """The arguments of all tasks, in the order in which a worker would take them."""
        from kombu import Connection

        found = []
        with Connection(self.url) as connection:
            while (message := connection.default_channel.basic_get(_QUEUE, no_ack=True)) is not None:
                arguments, named, _ = json.loads(message.body)
                assert named == {}
                found.append(arguments)
        return found

    def keys(self) -> dict[str, int]:
        """How much waits in each queue."""
        from kombu import Connection

        with Connection(self.url) as connection:
            return {_QUEUE: connection.default_channel.queue_declare(_QUEUE, passive=True).message_count}


@contextmanager
def rabbit_node() -> Iterator[Rabbit]:
    """With a name server of its own, which any Erlang node wants and would else leave behind."""
    folder = Path(tempfile.mkdtemp(prefix="rabbitmq-"))
    port, names_port, own_port = free_ports(3)
    names = subprocess.Popen(["epmd", "-port", str(names_port), "-address", "127.0.0.1"], stdout=subprocess.DEVNULL)
    rabbit = Rabbit(folder, port, names_port, own_port)
    try:
        yield rabbit.start()
    finally:
        if rabbit.is_running:
            rabbit.end(signal.SIGKILL)
        names.terminate()
        names.wait()
        shutil.rmtree(folder, ignore_errors=True)
