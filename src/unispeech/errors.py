"""The errors a caller may want to catch; every one is a `ValueError` with one line that names the fix."""


class ManifestError(ValueError):
    """A corpus, a manifest or an audio file cannot be used; messages start with `path:` or `path:line:`."""


class CheckpointError(ValueError):
    """A model directory or checkpoint file is incomplete, foreign, unsafe or does not fit the model."""


class AlignmentError(ValueError):
    """A transcript cannot be laid over the frames it is given."""
