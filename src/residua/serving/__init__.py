"""A classifier -> an HTTP server: predictions as JSON, the Open Inference Protocol, a page."""
