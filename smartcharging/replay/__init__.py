"""Days on a site in virtual time: the engine of the product beside other ways of sharing, on one and the same day.

Pure: no Django, no clock, no network. `days.py` and `recorded.py` make days, `world.py` lives them under a policy,
`kpis.py` judges all policies with one function, `study.py` repeats it over seeds.
"""
