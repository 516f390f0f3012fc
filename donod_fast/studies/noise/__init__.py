"""The noise study: damaged rows among the selected."""
