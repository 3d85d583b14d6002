"""The verbs of `roadside`, by what they are about. Each imports what it needs when it runs."""
