"""The drill of the alerts: each fault is caused in a running Parley, and its alert fires and clears."""
