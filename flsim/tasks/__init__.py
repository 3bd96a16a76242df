"""The embedded world: task groups, problems with exact answers, streams."""
