"""Pure maths of devices that work with a cloud on one answer: drafts and their acceptance, early exits, payloads."""
