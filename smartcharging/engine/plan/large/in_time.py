"""A plan of many cars when their optimum did not come in time: the best that flows find of an easier question.

Pure. It keeps every bound of the question that was asked. What a flow cannot tell apart is left out: that drivers may
leave early, that cars or a battery on one phase could give; a surplus car waits for the surplus that there is when it
comes to it, and a car in a hurry has the first slots in which it could be full.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from smartcharging.engine.plan import worth
from smartcharging.engine.plan.answer import Answer
from smartcharging.engine.plan.large import aggregate
from smartcharging.engine.plan.problem import PlanProblem, PlanSession, Series
from smartcharging.engine.plan.program import Program
from smartcharging.engine.snapshot import Mode

GAP = 1e-3
"""Nearer is not worth the time, which is short here."""
SURE_SHARE = 0.3
"""Of the time there is, so much is kept for this; on a site of 2,000 cars it takes two seconds."""


def answer(question: Program, left: Callable[[], float]) -> Answer:
    """The best plan that flows find. Raises `NoSolution`."""
    return aggregate.answer(question, GAP, left, or_best=True)


def question(problem: PlanProblem) -> Program | None:
    """The easier question, of which every plan is one of the question that was asked. None: flows cannot answer it."""
    easier = _battery_rests(worth.settled(problem))
    program = Program(replace(easier, sessions=tuple(_plain(s, problem.hours) for s in easier.sessions)))
    return program if aggregate.applies(program) else None


def only_costs_less(problem: PlanProblem) -> bool:
    """Is the easier question the same but for costs that it leaves out? Then a bound of it is a bound of this one."""
    kept = _battery_rests(problem) is problem
    return kept and all(s.mode is Mode.PLAN and not s.discharge_w for s in problem.sessions)


def _battery_rests(problem: PlanProblem) -> PlanProblem:
    """A battery whose phases a flow would have to tell apart rests, and one that may export only what cars below the
    same contract leave."""
    battery = problem.battery
    if battery is None:
        return problem
    above = [n for n in problem.grid.path(battery.node) if n > 0]
    free = all(problem.grid.circuits[n].export_limit_w is None for n in above)
    return problem if all(battery.phases) and free else replace(problem, battery=None)


def _plain(session: PlanSession, hours: Series) -> PlanSession:
    plain = replace(session, mode=Mode.PLAN, gone_eur_per_kwh=(), discharge_w=0.0, lends_wh=0.0)
    if session.mode is Mode.SURPLUS:
        return replace(plain, energy_wh=0.0)
    if session.mode is Mode.FAST:
        return replace(plain, last_slot=_full_at(session, hours))
    return plain


def _full_at(session: PlanSession, hours: Series) -> int:
    """The slot after which it could be full."""
    could_wh = session.max_w * session.efficiency * np.cumsum(hours[session.first_slot : session.last_slot])
    return min(session.first_slot + int(np.searchsorted(could_wh, session.energy_wh)) + 1, session.last_slot)
