"""Whose address a call comes from. Pure."""

ADDRESS_LENGTH_MAX = 64


def client_address(peer: str, forwarded_for: str, trusted_proxy_count: int) -> str:
    """Without a port. `peer` is whom we are connected to, `forwarded_for` what proxies wrote down, ours last.

    With proxies of ours in front it is whom the outermost of them was called by: what is further left in the header,
    anybody can write.
    """
    if trusted_proxy_count and forwarded_for:
        hops = [hop.strip() for hop in forwarded_for.split(",")]
        return hops[-min(trusted_proxy_count, len(hops))][:ADDRESS_LENGTH_MAX]
    host, _, _ = peer.rpartition(":")
    return host.strip("[]")
