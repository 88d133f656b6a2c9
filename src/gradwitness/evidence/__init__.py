"""What can be known about a gradient, one module per kind of evidence."""
