"""One book: whoever trades the same predictions over the same bars gets the same returns, to the bit."""
