"""Submit a message, follow its reply, read a session: all that a channel sees."""
