"""`python -m tests.faults.killed_command KILL ARGUMENT…`: the command line in a process that dies at a write. KILL is JSON."""

import sys

import msgspec

from tests.faults.killing import Kill, Watch
from tidemill.config import load_settings

if __name__ == "__main__":
    Watch(load_settings().home, msgspec.json.decode(sys.argv[1], type=Kill)).begin()
    from tidemill.cli.main import main

    main(sys.argv[2:])
