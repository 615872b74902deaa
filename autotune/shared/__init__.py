"""One study on several processes and machines.

    storage         optuna's storages by URL
    claims          claims, leases and outcomes as trials of an optuna storage
    specification   a study in the words of the command line
    worker          tries configurations of a shared study
    coordinator     starts a shared study and workers, keeps its trials and reports
    dashboard       studies in a browser
"""
