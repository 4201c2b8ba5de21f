"""What the coming hours bring: building load, PV and charging, as quantiles per slot.

Pure. A forecaster is anything that turns a history into a forecast (`series.Forecaster`): rules now, learnt models
later, all measured the same way against persistence (`score.py`), and the best of them is used. Every forecaster
answers for every history: long, short, with holes, or empty.

Signs are the house's: load is positive, PV negative. Quantiles are of the signed value, so the 90 % quantile is always
the one that leans on the connection most: much load, little sun.
"""
