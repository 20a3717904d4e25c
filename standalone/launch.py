"""The order of a start: the model service's process first, and while that imports its runtime, this one imports the services."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from types import ModuleType

from model_service.settings import ModelSettings
from searchsvc.settings import SearchSettings
from standalone.listeners import LOOPBACK, bind, bind_near, url_of
from standalone.misspelt import misspelt
from standalone.model_process import ModelProcess, child_environment
from standalone.settings import StandaloneSettings
from standalone.telling import tell
from watcher.settings import WatcherSettings

_MODEL_STOP_GRACE_S = 2.0


async def launch(settings: StandaloneSettings) -> None:
    """Start everything, and run until a signal. Raises AddressInUse, and the settings' ValidationError."""
    search_settings = SearchSettings()
    ModelSettings()  # the child reads its own; what is wrong with them is said here, before anything starts
    watcher_settings = WatcherSettings().model_copy(
        update={"host": LOOPBACK}
    )  # where its status is, whatever the page listens on
    for variable, meant in misspelt(os.environ, (StandaloneSettings, SearchSettings, WatcherSettings, ModelSettings)).items():
        tell(f"Note: {variable} is set, and is no setting. Was {meant} meant?")
    watcher_settings.data_dir.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        public = bind(settings.host, settings.port)
        model_listener, watcher_listener = bind_near(settings.model_port), bind_near(settings.watcher_port)
        for listener in (public, model_listener, watcher_listener):
            stack.callback(listener.close)
        model_url = url_of(model_listener)
        environment = child_environment(host=LOOPBACK, port=model_listener.getsockname()[1])
        await stack.enter_async_context(ModelProcess(model_listener, environment=environment, stop_grace_s=_MODEL_STOP_GRACE_S))
        importing = ThreadPoolExecutor(1, "imports")  # of its own, since the end of the loop waits for the loop's threads
        compose = await asyncio.get_running_loop().run_in_executor(importing, _imported)
        await compose.run(
            settings, watcher_settings, search_settings, public=public, watcher_listener=watcher_listener, model_url=model_url
        )


def _imported() -> ModuleType:
    from standalone import compose  # noqa: PLC0415 - a second of imports, which the child's start does not wait for

    return compose
