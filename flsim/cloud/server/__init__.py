"""What speaks to an OpenAI-compatible server for `flsim.cloud.endpoint`: address, dialects, replies, a trial."""
