"""A roadside edge node: answers with the early exits of its partition of the model."""
