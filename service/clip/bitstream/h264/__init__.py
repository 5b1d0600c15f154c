"""H.264 (ITU-T H.264): parameter sets, slice headers and the references between pictures."""
