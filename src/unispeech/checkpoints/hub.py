"""Models of the Hub: whether one is there, asked once and silently, and its smaller files.

transformers and huggingface_hub ask a Hub that is away six times in half a minute, with two lines each.
"""

import re
from contextlib import suppress
from pathlib import Path

from huggingface_hub import (
    get_hf_file_metadata,
    hf_hub_url,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
)

from unispeech.errors import CheckpointError


def is_hub_id(source: str | Path) -> bool:
    """Tell a Hub id from a path, by its form and by what is on the disk.

    Args:
        source: What a user named.

    Returns:
        True for "owner/name" where there is no folder "owner": nobody who mistypes `runs/best` means the Hub.
    """
    is_id = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", str(source)) is not None
    return is_id and not Path(source).parent.is_dir()


def is_on_hub(
    source: str | Path,
    *,
    subfolder: str = "",
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
) -> bool:
    """Find out where a model that is no local directory can be had.

    Args:
        source: A Hub id.
        subfolder: Where in the repository the model is.
        revision: Branch, tag or commit; None is the main branch.
        token: As huggingface_hub takes it.
        cache_dir: The Hub's cache; None is the usual place.

    Returns:
        True where the Hub is to be asked, which may refuse with words of its own; False where only the cache
        has the model.

    Raises:
        CheckpointError: If the Hub does not answer or know the model, and the cache does not hold it.
    """
    name = f"{subfolder}/config.json" if subfolder else "config.json"
    with suppress(HFValidationError):  # no id at all
        if _answers(hf_hub_url(str(source), name, revision=revision), token):
            return True
        if isinstance(try_to_load_from_cache(str(source), name, cache_dir, revision), str):
            return False
    raise CheckpointError(
        f"{source}: must be a model directory or a Hub id that can be reached, but is neither; check the "
        "name and the connection."
    )


def model_files(source: str | Path) -> Path:
    """Find the vocabulary and the settings of a model.

    Args:
        source: A model directory or a Hub id, whose JSON files are then fetched into the Hub's cache.

    Returns:
        A local directory with the files; a path that is no Hub id as it is, whether there is anything or not.

    Raises:
        CheckpointError: If the Hub cannot be reached and its cache does not hold the model.
    """
    if Path(source).is_dir() or not is_hub_id(source):
        return Path(source)
    is_away = not is_on_hub(source)
    return Path(snapshot_download(str(source), allow_patterns=["*.json"], local_files_only=is_away))


def _answers(url: str, token: str | bool | None) -> bool:
    """Whether the Hub says anything about a file, other than that there is no such model."""
    try:
        get_hf_file_metadata(url, token=token)
    except GatedRepoError:
        return True  # its line says how to get access
    except RepositoryNotFoundError:
        return False
    except HfHubHTTPError as error:
        return bool(error.response.status_code < 500)
    except Exception:  # a lost connection, under the names of whichever HTTP library is in use
        return False
    return True
