"""The embedded demonstration: a small trained model, a generated corpus with planted corruptions."""
