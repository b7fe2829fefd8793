"""What training minimises, one file each."""

from plugin.training.losses.base import Batch, Learner, Loss, Term, Terms
from plugin.training.losses.catalogue import default_loss, list_losses, losses, read_loss

__all__ = ["Batch", "Learner", "Loss", "Term", "Terms", "default_loss", "list_losses", "losses", "read_loss"]
