"""The embedded world: tasks, problems with exact answers, streams."""
