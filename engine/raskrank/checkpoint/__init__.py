"""What a Hugging Face checkpoint says about itself. One door: `read_checkpoint`. None of a checkpoint's code is run."""

from raskrank.checkpoint.config import CONFIGURATION, Checkpoint, Configuration, read_checkpoint, read_configuration

__all__ = ["CONFIGURATION", "Checkpoint", "Configuration", "read_checkpoint", "read_configuration"]
