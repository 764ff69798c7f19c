"""Clients of language models: OpenAI, Azure OpenAI, and compatible servers."""

from turnwise.models.openai_chat import AzureOpenAIChat, OpenAIChat

__all__ = ["AzureOpenAIChat", "OpenAIChat"]
