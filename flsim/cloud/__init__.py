"""The cloud LLM and the ledger that guards it."""
