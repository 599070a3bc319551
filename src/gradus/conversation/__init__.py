"""The one definition of a conversation: messages, formats, lint, validator, checks, import."""
