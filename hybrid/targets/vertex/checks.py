"""What `doctor` looks at for a Vertex AI target."""

import functools
import uuid

from google.api_core.exceptions import Forbidden, NotFound
from google.auth.transport.requests import Request

from kfp_hybrid import images
from kfp_hybrid.errors import UserError
from kfp_hybrid.profiles import image_reference
from kfp_hybrid.targets.doctor import Check, CheckWarning
from kfp_hybrid.targets.reality import clock_skew, image_in_registry
from kfp_hybrid.targets.vertex import catalogue
from kfp_hybrid.targets.vertex.client import TIMEOUT, Client

PATIENCE = 15.0
"""Seconds of trying again: whoever runs doctor waits for it."""
IAM = "https://iam.googleapis.com/v1/projects/-/serviceAccounts/{account}:testIamPermissions"
SECRETS = "https://secretmanager.googleapis.com/v1"
ACT_AS = "iam.serviceAccounts.actAs"
GOOGLE_REGISTRIES = (".pkg.dev", "gcr.io")


def checks(client: Client) -> list[Check]:
    """The checks, in order; the later ones need the earlier."""
    client = Client(client.profile, patience=PATIENCE)
    profile = client.profile
    return [
        Check("there are Google Cloud credentials", functools.partial(_credentials, client), needed=True),
        Check(f"the clock agrees with {client.endpoint}", functools.partial(clock_skew, client.endpoint), needed=True),
        Check(f"Vertex AI answers for {client.parent}", functools.partial(_api, client), needed=True),
        Check(f"{profile.pipeline_root} can be written", functools.partial(_bucket, client)),
        Check("runs have a service account", functools.partial(_service_account, client)),
        *(
            Check(f"the image {name} is in its registry", functools.partial(_image, client, name))
            for name in images.names()
        ),
        *(
            Check(f"the secret {name} is there", functools.partial(_secret, client, list(secret.env.values())))
            for name, secret in profile.secrets.items()
        ),
        Check("packages can be registered", functools.partial(_templates, client)),
    ]


def _credentials(client: Client) -> str:
    credentials = client.credentials
    client.call("get a token", lambda: credentials.refresh(Request()))
    who = (getattr(credentials, name, None) for name in ("service_account_email", "account"))
    return next(filter(None, who), "those of a user")


def _api(client: Client) -> str:
    request = {"parent": client.parent, "page_size": 1}
    client.call("list runs", lambda: next(iter(client.jobs.list_pipeline_jobs(request, timeout=TIMEOUT).pages)))
    return "runs can be listed"


def _bucket(client: Client) -> str:
    bucket, _, folder = client.profile.pipeline_root.removeprefix("gs://").partition("/")
    name = "/".join(filter(None, [folder.strip("/"), f"kfp-hybrid-doctor-{uuid.uuid4().hex}"]))
    blob = client.storage.bucket(bucket).blob(name)
    role = catalogue.BUCKET_WRITER
    client.call(
        f"write gs://{bucket}/{name}", lambda: blob.upload_from_string(b"", timeout=TIMEOUT, retry=None), role=role
    )
    client.call(f"delete gs://{bucket}/{name}", lambda: blob.delete(timeout=TIMEOUT, retry=None), role=role)
    return "an object was written and deleted, with your rights; the service account of the runs needs them too"


def _service_account(client: Client) -> str:
    account = client.profile.service_account
    if account is None:
        raise CheckWarning(
            "steps run as the service account of Compute Engine, which may do much or nothing in the project; make one "
            "for runs and set service_account"
        )
    url = IAM.format(account=account)
    try:
        answer = client.call("look at the service account", lambda: client.post(url, {"permissions": [ACT_AS]}))
    except UserError as error:
        raise CheckWarning(f"{error}; runs need roles/iam.serviceAccountUser on {account} for you") from None
    if ACT_AS not in answer.get("permissions", []):
        raise UserError(f"you may not act as {account}; ask for roles/iam.serviceAccountUser on it")
    return f"you may act as {account}"


def _secret(client: Client, versions: list[str]) -> str:
    """Look for secret versions; their values, which only steps need, are not read."""

    def state(version: str) -> str:
        try:
            return client.get(f"{SECRETS}/{version}").get("state", "")
        except NotFound:
            raise UserError(f"there is no secret version {version}; make it") from None
        except Forbidden as error:
            raise CheckWarning(
                f"you may not look at {version} ({error.message.partition(': ')[2] or error.message}); see that the "
                "service account of the runs has roles/secretmanager.secretAccessor on it"
            ) from None

    for version in versions:
        found = client.call("look for the secret", functools.partial(state, version))
        if found != "ENABLED":
            raise UserError(f"{version} is {found.lower()}; enable it, or name another version")
    return ", ".join(versions)


def _image(client: Client, name: str) -> str:
    reference = image_reference(client.profile, name)
    registry = reference.partition("/")[0]
    of_google = registry.endswith(GOOGLE_REGISTRIES)
    token = ("oauth2accesstoken", str(client.credentials.token)) if of_google else None
    digest = image_in_registry(reference, credentials=token)
    if not of_google:
        raise CheckWarning(
            f"{reference} is there, but Vertex AI is documented to pull from Artifact Registry only; make a remote "
            f"repository for {registry} there (docs/vertex.md) and set registry to it"
        )
    return digest


def _templates(client: Client) -> str:
    repository = client.profile.template_repository
    if repository is None:
        return f"they go to {client.profile.pipeline_root.rstrip('/')}/packages"
    templates = catalogue.registry(client, repository)
    client.call("list the templates", lambda: catalogue.in_time(templates.list_packages), role=catalogue.WRITER)
    return repository
