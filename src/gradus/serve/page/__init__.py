"""The chat page: static files that the server hands out at "/", ES modules as they are, without a build step."""
