"""What happened: the recorder, its ledger of outcomes, and the report made from it."""
