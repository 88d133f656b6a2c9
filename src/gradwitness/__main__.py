"""`python -m gradwitness`."""

from gradwitness.cli import main

if __name__ == "__main__":
    main()
