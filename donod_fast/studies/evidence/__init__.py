"""The engine of the evidence: selections against matched random draws, with trainings as cached cells."""
