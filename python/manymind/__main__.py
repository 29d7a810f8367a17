# SPDX-License-Identifier: Apache-2.0
"""``python -m manymind``: the command line."""

from manymind.cli import main

if __name__ == "__main__":
    main()
