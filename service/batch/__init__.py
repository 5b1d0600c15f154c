"""Labelling of many videos into one file; an interrupted run can be continued."""
