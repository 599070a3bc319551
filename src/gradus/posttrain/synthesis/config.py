"""Names of the tasks and what each needs, light to import: settings are checked by them."""

from __future__ import annotations

# The settings of the stage that a task cannot do without; a test holds the names against the table in tasks.py.
TASK_NEEDS: dict[str, str | None] = {
    "think_search_answer": "documents",
    "think_calculator_answer": None,
    "think_answer": None,
    "reasoning": None,
    "temporal": None,
    "arithmetic": None,
    "identity": "persona",
    "creative": None,
    "follow_up": None,
    "documents": "documents",
    "tone": None,
}
MOST_PERSONA_CHARACTERS = 8000
