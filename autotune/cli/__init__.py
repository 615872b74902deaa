"""The command line.

    present     progress bar and tables
    joining     worker, proxy, dashboard: the commands around a storage
    command     the application and all other commands
"""
