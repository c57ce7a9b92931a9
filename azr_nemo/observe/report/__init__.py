"""The report: one HTML file that shows what a run, or several, came to (docs/report.md)."""
