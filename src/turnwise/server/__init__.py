"""The ASGI application of `turnwise serve`."""
