"""Text and conversations made from templates, without a download."""
