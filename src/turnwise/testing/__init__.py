"""For your tests: talk to a bot in one line, script its model, check your own store.

    async with talk(bot) as say:
        assert (await say("hi")).text == "Hello!"

To test your own store against the promise, subclass `StoreConformance`; it needs pytest.
`turnwise.testing.virtual` is a clock that jumps.
"""

from turnwise.testing.talking import Say, ScriptedModel, talk

try:
    from turnwise.testing.conformance import StoreConformance as StoreConformance
except ImportError:  # pytest is not installed
    pass

__all__ = ["Say", "ScriptedModel", "talk"]
