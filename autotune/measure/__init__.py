"""The cpu objective: what a configuration costs on this machine, honest about noise.

    timing       statistics of noisy times
    turnstile    who compiles and who measures on this host
    correctness  whether results are the expected ones, and how far off
    requests     what the process below is asked
    measuring    the process that compiles, checks and times
    isolation    the parent's end of such processes
    measured     the objective
"""
