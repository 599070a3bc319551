"""Serving: models behind an OpenAI-compatible API, and a page to talk to them."""
