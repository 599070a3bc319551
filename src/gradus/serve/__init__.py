"""Serving: the OpenAI-compatible API, accounts by key, the chat page, the search classifier."""
