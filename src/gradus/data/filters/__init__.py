"""Which documents stay in a corpus, and what is masked in those that do: named filters and maskers."""
