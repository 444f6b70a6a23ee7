"""The admin API of a running gateway, as the commands use it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from gateway.cli.errors import USAGE, CliError
from gateway.config import Config, load_config

URL_VARIABLE = "TOLLHOUSE_URL"
TOKEN_VARIABLE = "TOLLHOUSE_ADMIN_TOKEN"
DATA_VARIABLE = "TOLLHOUSE_DATA_DIR"
TOKEN_FILE = "admin-token"
ANSWER_S = 30.0


class AdminClient:
    """`url` is the gateway's address without a path. `answer_s`: how long an answer may take, None
    for as long as it does. Raises CliError."""

    def __init__(self, url: str, token: str, answer_s: float | None = ANSWER_S) -> None:
        self._url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=f"{self._url}/admin/v1",
            headers={"authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(ANSWER_S, read=answer_s),
            trust_env=False,
        )

    def __enter__(self) -> AdminClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | None = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        missing_ok: bool = False,
    ) -> httpx.Response:
        """`path` begins with a slash and has its variable parts quoted. `content` is sent as it
        is. With `missing_ok` a 404
        is returned instead of raised."""
        params = {k: v for k, v in (query or {}).items() if v is not None}
        try:
            reply = self._http.request(
                method,
                path,
                json=json,
                content=content,
                params=params or None,
                headers=dict(headers or {}),
            )
        except httpx.HTTPError as exc:
            raise CliError(
                f"no answer from {self._url}: {exc}. Is the gateway running? "
                f"Give its address with --url or {URL_VARIABLE}."
            ) from exc
        if reply.is_success or (missing_ok and reply.status_code == 404):
            return reply
        raise CliError(_problem(reply), USAGE if reply.status_code in (400, 422) else 1)

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        return self.request("GET", path, query=query).json()

    def post(self, path: str, json: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        return self.request("POST", path, json=json, headers=headers).json()


def connect(args: argparse.Namespace, answer_s: float | None = ANSWER_S) -> AdminClient:
    """Address and token from the options, the environment, or the configuration."""
    url = args.url or os.environ.get(URL_VARIABLE, "")
    token = args.token or os.environ.get(TOKEN_VARIABLE, "")
    if not (url and token):
        config = load_config(args.config) if args.config else _default()
        url = url or _local_url(config)
        token = token or config.admin.token or _read_token(Path(config.data_dir) / TOKEN_FILE)
    if not (token and token.isascii() and token.isprintable()):
        raise CliError("the admin token must be printable ASCII", USAGE)
    if not url.startswith(("http://", "https://")):
        raise CliError("--url must start with http:// or https://", USAGE)
    return AdminClient(url, token, answer_s)


def part(value: str) -> str:
    """One segment of a path. Raises CliError for an empty one, which would be another path."""
    if not value:
        raise CliError("the name or id must not be empty", USAGE)
    return quote(value, safe="")


def _default() -> Config:
    return Config(data_dir=os.environ.get(DATA_VARIABLE) or Config().data_dir)


def _local_url(config: Config) -> str:
    host = config.server.host
    if host in ("", "0.0.0.0"):  # noqa: S104  # compared, not bound
        host = "127.0.0.1"
    elif ":" in host:
        host = "[::1]" if host == "::" else f"[{host}]"
    return f"http://{host}:{config.server.port}"


def _read_token(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise CliError(
            f"no admin token: give --token, {TOKEN_VARIABLE}, or --config; {path} cannot be read",
            USAGE,
        ) from exc


def _problem(reply: httpx.Response) -> str:
    try:
        body = reply.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return f"the gateway answered {reply.status_code}"
    lines = [str(body.get("detail") or body.get("title") or f"status {reply.status_code}")]
    for error in body.get("errors") or ():
        if isinstance(error, dict):
            path = error.get("path")
            lines.append(f"  {path}: {error.get('message')}" if path else f"  {error['message']}")
    return "\n".join(lines)
