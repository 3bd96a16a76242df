"""Real questions and recorded verdicts: does a small reader learn when to ask, and how do routers fare beside it?"""
