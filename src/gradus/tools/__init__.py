"""What a model may call: the calculator and the box that runs calls."""
