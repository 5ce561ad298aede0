"""The bottom of the house: machine, devices, files, signals, and how commands end."""
