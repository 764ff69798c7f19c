"""Channels: the ways in which users talk to a bot. A channel uses the gateway only."""
