"""What every study shares: cells, scoring, selecting, fine-tuning, statistics, tables and reports."""
