"""What predicts whether a relaxation trains: from finished runs to correlations, a model and words."""
