"""Run records, the journal, its mirror in MLflow, the registry, figures."""
