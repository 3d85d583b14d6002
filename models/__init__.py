"""What edge and cloud share: the vision-language model, its split into stages, early exits and decoding modes."""
