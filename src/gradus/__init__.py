"""gradus: from raw text to a small chat model, by one roadmap file."""
