"""A run's facts -> report, pages, figures."""
