"""`python -m stack` is `stackctl`."""

from stack.cli import main

if __name__ == "__main__":
    main()
