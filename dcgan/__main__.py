"`python -m dcgan`: the command line of lesson 33. The one module that no notebook writes: nbdev can't start a file of this name."
import sys

from dcgan.cli import main

if __name__ == "__main__":
    sys.exit(main())
