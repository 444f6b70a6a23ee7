"""Measuring routers and detectors on labelled data. Never imported while serving."""
