"""The list of commands in `gradus --help`: by what they are for, each with its whole first sentence."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

SECTIONS = {
    "Make a model": ("run", "plan", "watch", "report", "doctor"),
    "Use it": ("chat", "serve", "deploy", "export", "index", "search"),
    "Measure it": ("eval", "compare"),
    "Look into data": ("data",),
    "Keep it": ("push", "pull", "gc"),
}


class Sectioned(TyperGroup):
    """A group whose commands stand in SECTIONS; one that stands in none is a bug."""

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order of the sections."""
        ordered = [name for names in SECTIONS.values() for name in names]
        assert sorted(ordered) == sorted(self.commands), "a command stands in no section"
        return ordered

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Each section under its title; help texts wrap instead of ending in dots."""
        width = max(map(len, self.commands))
        for title, names in SECTIONS.items():
            with formatter.section(title):
                rows = [(name.ljust(width), self.commands[name].get_short_help_str(limit=1000)) for name in names]
                formatter.write_dl(rows)
