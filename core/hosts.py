"""Names and addresses of hosts, as far as it matters who can be behind them."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether a service that listens on `host` is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
