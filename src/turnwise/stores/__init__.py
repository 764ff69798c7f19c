"""Stores hold sessions, mailboxes and event logs. One promise, several implementations."""
