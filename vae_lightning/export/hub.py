"""Pushes an exported folder to a model repository on a hub; the right to write is checked before anything else."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vae_lightning.system.extras import check_extra

NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)  # OWNER/NAME; the hub itself is stricter


@dataclass(frozen=True)
class HubPlace:
    """Where an export will go.

    Args:
        name: OWNER/NAME.
        is_public: whether everybody will see it.
        is_there: whether it exists already; what is pushed becomes its newest version.
    """

    name: str
    is_public: bool
    is_there: bool


def check_access(name: str, public: bool) -> HubPlace:
    """Checks whether the token may write there, as far as the hub tells before an upload.

    Args:
        name: OWNER/NAME.
        public: whether everybody is to see it.

    Raises:
        ValueError: no such name, extra, token, network or right; or the repository is there and not as public as asked.
    """
    check_extra("export", "--push", "huggingface_hub")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # what else is installed here is nobody's business
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import RepositoryNotFoundError

    if not NAME.fullmatch(name):
        raise ValueError(f"--push {name}: needs OWNER/NAME, your user name or an organisation's before the slash")
    if get_token() is None:
        raise ValueError(f"--push {name}: no token found; set HF_TOKEN, or log in with `hf auth login`")
    api = HfApi()
    with explained(f"--push {name}"):
        person = api.whoami()
        _check_right(name, person)
        try:
            is_public = not api.model_info(name).private
        except RepositoryNotFoundError:
            return HubPlace(name, public, is_there=False)
    if is_public != public:
        fix = "say --public" if is_public else "leave out --public, or make it public in its settings first"
        raise ValueError(f"--push {name}: that repository is there, and {'public' if is_public else 'private'}: {fix}")
    return HubPlace(name, public, is_there=True)


def _check_right(name: str, person: dict[str, object]) -> None:
    """Checks what `whoami` says; about a fine-grained token the hub itself decides, at the upload."""
    organisations = person.get("orgs") or []
    assert isinstance(organisations, list)
    owners = [str(person["name"]), *(str(organisation["name"]) for organisation in organisations)]
    if name.partition("/")[0] not in owners:
        raise ValueError(f"--push {name}: this token is of {owners[0]}, who may write to {', '.join(owners)}")
    authorisation = person.get("auth") or {}
    assert isinstance(authorisation, dict)
    if authorisation.get("accessToken", {}).get("role") == "read":
        raise ValueError(f"--push {name}: this token may only read; make one with the right to write")


def push(folder: Path, place: HubPlace) -> str:
    """Uploads everything in one commit; returns the address.

    Raises:
        ValueError: the hub refused it, or could not be reached; the repository is as it was before.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    with explained(f"--push {place.name}"):
        if not place.is_there:
            api.create_repo(place.name, private=not place.is_public, exist_ok=False)
        api.upload_folder(repo_id=place.name, folder_path=folder, commit_message="vae export")
        return f"{api.endpoint}/{place.name}"


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turns errors of the hub and of the network into one line."""
    from huggingface_hub import errors
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    connection_error: type[Exception] = vars(errors)["HTTPError"]  # httpx's or httpx2's, by version
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise ValueError(f"{what}: HF_HUB_OFFLINE is set; unset it to push") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        reasons = {401: "the token is not valid", 403: "this token has no right to write there"}
        said = error.server_message or str(error).splitlines()[0]
        raise ValueError(f"{what}: {reasons.get(status, 'the hub refused it')} ({status}: {said})") from error
    except connection_error as error:
        raise ValueError(
            f"{what}: the hub cannot be reached ({error}); the exported folder can be pushed later"
        ) from error
