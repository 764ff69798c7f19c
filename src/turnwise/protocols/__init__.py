"""Doors for other people's clients, on the same sessions: each is a router for any application.

from turnwise.protocols import openai

app.include_router(openai.router(runtime), prefix="/openai/v1")
"""
