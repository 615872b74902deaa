"""Which configurations are tried, in which order, and which one is chosen.

    pareto      the front of several figures
    several     several figures at once, modelled and measured
    offered     samplers by name, and what they need
    exhaustive  every configuration
    samplers    optuna behind ask and tell
    opening     what a measured search begins with
    study       the search
"""
