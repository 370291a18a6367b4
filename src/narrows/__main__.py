"""python -m narrows: the command line where the script is not on the path."""

from narrows.cli import main

main()
