"""Driving logs: BDD-X's format, rendered logs, the ground truth in them and how answers are scored against it.

Not Hugging Face's `datasets`: outside this package it is always `roadside.datasets`.
"""
