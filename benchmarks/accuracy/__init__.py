"""Times of gradwitness held against loops written by hand around the same calls."""
