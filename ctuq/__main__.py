"""``python -m ctuq`` is the ``ctuq`` command."""

import sys

from ctuq.app.cli import main

sys.exit(main())
