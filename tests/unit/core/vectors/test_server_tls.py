"""A Qdrant server behind TLS is believed if its certificate is, and else not."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer
from structlog.testing import capture_logs

from core.errors import VectorsUnavailable
from core.vectors.server import ServerStore
from tests.qdrant_rest import RestQdrant
from tests.tls import self_signed


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")
async def test_a_certificate_that_nobody_vouches_for_is_refused_and_a_trusted_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, certificate = self_signed(tmp_path)
    qdrant = RestQdrant(api_key=None)
    server = TestServer(qdrant.app(), scheme="https")
    await server.start_server(ssl=context)
    url = str(server.make_url("/")).rstrip("/")
    try:
        with capture_logs() as logs, pytest.raises(VectorsUnavailable):
            async with ServerStore(url) as store:
                await store.ping()
        assert "CERTIFICATE_VERIFY_FAILED" in str(logs)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with ServerStore(url) as store:
            await store.ping()
    finally:
        await server.close()
        await qdrant.close()
