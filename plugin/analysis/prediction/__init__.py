"""What accuracy a relaxation will train to, from its measured properties and a study of others."""
