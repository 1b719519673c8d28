"""Puts the code interpreter on a private Hugging Face Space and checks that it works there."""
