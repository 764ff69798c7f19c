"""Stores: where sessions, mailboxes and event logs are kept. One promise, several homes."""
