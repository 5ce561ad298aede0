"""The lowest room: machine, devices, files, flags, and how commands end; imports nothing above."""
