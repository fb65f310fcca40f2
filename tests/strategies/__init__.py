"""Unit tests of the pieces that strategies are made of, and of what is special about each strategy."""
