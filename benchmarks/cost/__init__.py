"""What verifying costs, beside what others take and beside a forward pass."""
