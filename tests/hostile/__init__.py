"""Generated hostile, broken and unusual files, with the expected answer to each.

python -m tests.hostile --passes 10      post the whole corpus to a new service and print a report
"""
