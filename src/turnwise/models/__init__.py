"""Clients of language models: OpenAI, Azure OpenAI, and compatible servers."""

from turnwise.models.azure import AzureOpenAIChat
from turnwise.models.openai_chat import OpenAIChat
from turnwise.models.tools import Tool

__all__ = ["AzureOpenAIChat", "OpenAIChat", "Tool"]
