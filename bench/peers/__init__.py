"""What others use for the same work, each in an environment of its own under `.data/peers`: never in the product's.

An adapter (`with_*.py`) is a program run by that environment's Python. It is given a day as `instance.py` reads it,
times itself, and answers with powers; `asking.py` writes the day, starts the adapter and has the answer judged.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
KEPT = HERE.parents[1] / ".data" / "peers"


@dataclass(frozen=True)
class Peer:
    """`less` says what of the standard problem it cannot express, or leaves out; empty when it models all of it."""

    name: str
    title: str
    less: str = ""

    @property
    def python(self) -> Path:
        return KEPT / self.name / "bin" / "python"

    @property
    def script(self) -> Path:
        return HERE / f"with_{self.name}.py"

    @property
    def packages(self) -> Path:
        return HERE / f"{self.name}.txt"

    @property
    def installed(self) -> bool:
        """Whether its environment holds just what is pinned now."""
        stamp = KEPT / self.name / "installed.txt"
        return self.python.exists() and stamp.exists() and stamp.read_text() == self.packages.read_text()

    @property
    def missing(self) -> str:
        return f"{self.title} is not installed here: python -m bench.peers {self.name}"

    def install(self) -> None:
        place = KEPT / self.name
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        uv = shutil.which("uv")
        with_pip = [str(self.python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        installer = [uv, "pip", "install", "-q", "-p", str(self.python)] if uv else with_pip
        subprocess.run([*installer, "-r", str(self.packages)], check=True)
        (place / "installed.txt").write_text(self.packages.read_text())


PEERS = {
    peer.name: peer
    for peer in (
        Peer("cvxpy", "cvxpy CLARABEL"),
        Peer("linopy", "linopy HiGHS"),
        Peer("pyomo", "Pyomo HiGHS"),
        Peer("adacharge", "AdaCharge", less="no battery, no export, one price for all goals"),
        Peer("flexmeasures", "FlexMeasures", less="goals are hard, no preference for early charging"),
        Peer("acnportal", "acnportal"),
    )
}
