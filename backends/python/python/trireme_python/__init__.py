"""The half of Trireme's Python backend that runs in the process of a model instance."""
