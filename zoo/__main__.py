"""`python -m zoo`: the console command, where it is not on the path."""

from zoo.cli import main

if __name__ == "__main__":
    main()
