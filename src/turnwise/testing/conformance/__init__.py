"""The promise of `turnwise.stores.base.Store` as a suite of tests, for any store.

    class TestMyStore(StoreConformance):
        @pytest.fixture
        async def store(self): ...          # an open, empty store

        async def pass_time(self, store, seconds): ...

It needs pytest with pytest-asyncio in auto mode, and checks the table of a turn's states: every
transition is made with the store's acts, and all other transitions are refused.
"""

from turnwise.testing.conformance.agents import AgentConformance
from turnwise.testing.conformance.busy_and_waking import BusyAndWakingConformance
from turnwise.testing.conformance.claims import ClaimConformance
from turnwise.testing.conformance.operators import OperatorConformance
from turnwise.testing.conformance.outbox import OutboxConformance
from turnwise.testing.conformance.owners import OwnerConformance
from turnwise.testing.conformance.readings import ReadingConformance
from turnwise.testing.conformance.sessions import SessionConformance
from turnwise.testing.conformance.taking_back import TakingBackConformance
from turnwise.testing.conformance.turns import TurnConformance


class StoreConformance(
    TurnConformance,
    ClaimConformance,
    SessionConformance,
    ReadingConformance,
    AgentConformance,
    OwnerConformance,
    TakingBackConformance,
    BusyAndWakingConformance,
    OperatorConformance,
    OutboxConformance,
):
    """Subclass it, add a `store` fixture, and define how time passes (`pass_time`)."""
