"""Clients of language models: OpenAI, Azure OpenAI, and every server that speaks like them."""

from turnwise.models.openai_chat import AzureOpenAIChat, OpenAIChat

__all__ = ["AzureOpenAIChat", "OpenAIChat"]
