"""A cloud node: answers with the whole model."""
