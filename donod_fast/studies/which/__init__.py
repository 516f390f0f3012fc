"""Which selection to use on one's own data: a small study against random draws that fits a budget of time."""
