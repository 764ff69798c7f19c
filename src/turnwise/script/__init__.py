"""Scripts: dialogs as data. Flows of nodes, and transitions with conditions between them."""

from turnwise.script.conditions import (
    All,
    Always,
    Any,
    Condition,
    Exact,
    Has,
    LastLabels,
    Not,
    Regexp,
    SlotsExtracted,
)
from turnwise.script.context import Context
from turnwise.script.flow import (
    GLOBAL,
    LOCAL,
    Backward,
    Choice,
    Current,
    Fallback,
    Forward,
    FromHistory,
    Node,
    Previous,
    Start,
    Template,
    To,
    Together,
)
from turnwise.script.handler import Script
from turnwise.script.languages import Localized, Speaks
from turnwise.script.slots import Extract, FunctionSlot, Group, RegexpSlot

__all__ = [
    "GLOBAL",
    "LOCAL",
    "All",
    "Always",
    "Any",
    "Backward",
    "Choice",
    "Condition",
    "Context",
    "Current",
    "Exact",
    "Extract",
    "Fallback",
    "Forward",
    "FromHistory",
    "FunctionSlot",
    "Group",
    "Has",
    "LastLabels",
    "Localized",
    "Node",
    "Not",
    "Previous",
    "Regexp",
    "RegexpSlot",
    "Script",
    "SlotsExtracted",
    "Speaks",
    "Start",
    "Template",
    "To",
    "Together",
]
