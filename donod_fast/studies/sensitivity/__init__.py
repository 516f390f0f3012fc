"""The sensitivity study and the ablation: what the ranking owes to the scoring step."""
