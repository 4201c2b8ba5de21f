"""`python -m bench.peers [name …]`: make the environments of these peers, or of all, where they are not there yet."""

from __future__ import annotations

import subprocess
import sys

from bench.peers import PEERS


def main() -> None:
    asked = [word for word in sys.argv[1:] if word != "install"] or list(PEERS)
    unknown = [name for name in asked if name not in PEERS]
    if unknown:
        sys.exit(f"unknown peer {unknown[0]!r}; there are: {', '.join(PEERS)}")
    failed = []
    for name in asked:
        peer = PEERS[name]
        if peer.installed:
            print(f"{name}: installed")
            continue
        print(f"{name}: installing …", flush=True)
        try:
            peer.install()
        except subprocess.CalledProcessError as error:
            failed.append(name)
            print(f"{name}: could not be installed ({error.cmd[0]} ended with {error.returncode})")
    if failed:
        sys.exit(f"not installed: {', '.join(failed)}; the bench goes on without them")


if __name__ == "__main__":
    main()
