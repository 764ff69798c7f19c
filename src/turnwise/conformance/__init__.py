"""The promise of `turnwise.stores.base.Store` as a suite of tests, for any store.

    class TestMyStore(StoreConformance):
        @pytest.fixture
        async def store(self): ...          # an open, empty store

        async def pass_time(self, store, seconds): ...

It needs pytest with pytest-asyncio in auto mode, and walks the table of a turn's states: every
arrow is taken through the store's acts, and what is no arrow is refused.
"""

from turnwise.conformance.claims import ClaimConformance
from turnwise.conformance.readings import ReadingConformance
from turnwise.conformance.sessions import SessionConformance
from turnwise.conformance.turns import TurnConformance


class StoreConformance(TurnConformance, ClaimConformance, SessionConformance, ReadingConformance):
    """Subclass it, give it a `store` fixture, and say how time passes there (`pass_time`)."""
