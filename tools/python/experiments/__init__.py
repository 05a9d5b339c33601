"""Tables of the documentation that take many runs of `ddpo up`."""
