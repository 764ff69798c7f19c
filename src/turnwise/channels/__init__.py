"""Channels: the doors through which people talk to a bot. Each sees the gateway and no more."""
