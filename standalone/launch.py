"""The order of a start: the model service's process first, and while that imports its runtime, this one imports the services."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from types import ModuleType

from searchsvc.settings import SearchSettings
from standalone.listeners import LOOPBACK, bind, bind_near, url_of
from standalone.model_process import ModelProcess, child_environment
from standalone.settings import StandaloneSettings
from watcher.settings import WatcherSettings

_MODEL_STOP_GRACE_S = 2.0


async def launch(settings: StandaloneSettings) -> None:
    """Start everything, and run until a signal. Raises AddressInUse, and the settings' ValidationError."""
    search_settings = SearchSettings()
    watcher_settings = WatcherSettings().model_copy(
        update={"host": LOOPBACK}
    )  # where its status is, whatever the page listens on
    watcher_settings.data_dir.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        public = bind(settings.host, settings.port)
        model_listener, watcher_listener = bind_near(settings.model_port), bind_near(settings.watcher_port)
        for listener in (public, model_listener, watcher_listener):
            stack.callback(listener.close)
        model_url = url_of(model_listener)
        environment = child_environment(host=LOOPBACK, port=model_listener.getsockname()[1])
        await stack.enter_async_context(ModelProcess(model_listener, environment=environment, stop_grace_s=_MODEL_STOP_GRACE_S))
        compose = await asyncio.to_thread(_imported)
        await compose.run(
            settings, watcher_settings, search_settings, public=public, watcher_listener=watcher_listener, model_url=model_url
        )


def _imported() -> ModuleType:
    from standalone import compose  # noqa: PLC0415 - a second of imports, which the child's start does not wait for

    return compose
