"""Labels of many videos in one file: listed, classified, and written so that a run can be continued."""
