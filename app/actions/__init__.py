"""One typed function for each thing that a person can do.

The command line, jobs, schedules and pages call these; so may a notebook. Each takes plain values and option
dataclasses, and returns a result object whose ``str`` is what the command line prints.
"""
