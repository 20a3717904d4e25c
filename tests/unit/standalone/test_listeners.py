"""Sockets are bound before anything starts, and taken ports are told."""

from __future__ import annotations

import socket

import pytest

from standalone.listeners import LOOPBACK, AddressInUse, bind, bind_near, url_of


def test_a_taken_port_is_told_in_words() -> None:
    with bind(LOOPBACK, 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(AddressInUse, match=str(port)):
            bind(LOOPBACK, port)


@pytest.mark.parametrize("host", ["nowhere.invalid", "192.0.2.1", "a..b"])
def test_an_address_that_cannot_be_had_is_named(host: str) -> None:
    with pytest.raises(OSError, match=f"nothing can listen on {host}, port 3000: [A-Za-z]"):
        bind(host, 3000)


def test_an_inner_service_takes_a_free_port_where_its_own_is_in_use() -> None:
    with bind(LOOPBACK, 0) as first, bind_near(first.getsockname()[1]) as second:
        assert second.getsockname()[1] != first.getsockname()[1]
        assert second.getsockname()[0] == LOOPBACK


def test_the_address_is_one_that_a_browser_can_open() -> None:
    with socket.socket() as everywhere:
        everywhere.bind(("0.0.0.0", 0))
        assert url_of(everywhere) == f"http://127.0.0.1:{everywhere.getsockname()[1]}"
