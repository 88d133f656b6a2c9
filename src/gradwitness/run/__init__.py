"""A run: trial, loss, checks, peers, intentions and reductions of every candidate give rows."""
