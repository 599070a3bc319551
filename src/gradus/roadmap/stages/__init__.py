"""One file a kind of stage."""
