"""AzureOpenAIChat: answers with a chat model that is deployed on Azure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from turnwise.models.address import openai_package
from turnwise.models.openai_chat import OpenAIChat

if TYPE_CHECKING:
    from openai import AsyncOpenAI


class AzureOpenAIChat(OpenAIChat):
    """OpenAIChat with a deployment on Azure.

    `model` is the deployment's name; `endpoint` and `api_version` default to
    AZURE_OPENAI_ENDPOINT and OPENAI_API_VERSION, the key to AZURE_OPENAI_API_KEY.
    """

    def __init__(
        self,
        model: str,
        *,
        endpoint: str | None = None,
        api_version: str | None = None,
        **more: Any,
    ) -> None:
        self._azure = {"azure_endpoint": endpoint, "api_version": api_version}
        super().__init__(model, **more)

    def _connect(self, **how: Any) -> AsyncOpenAI:
        azure = {key: value for key, value in self._azure.items() if value is not None}
        how = {key: value for key, value in how.items() if value is not None}
        client: AsyncOpenAI = openai_package().AsyncAzureOpenAI(**azure, **how)
        return client
