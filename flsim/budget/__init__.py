"""Cloud budgets: a device's ledger, the fleet's budget, and how a cap is divided."""
