"""What the local Hub does at each route: its users and its Spaces, changed and shown as the real one does."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from tests.hub.record import Exchange
from tests.hub.space import RESTART, LocalSpace, oid_of, stamp

# a route's name, method, and path; {…} are Space ids, revisions and file paths
ROUTES = [
    ("whoami", "GET", r"/api/whoami-v2"),
    ("create", "POST", r"/api/repos/create"),
    ("delete", "DELETE", r"/api/repos/delete"),
    ("hardware list", "GET", r"/api/spaces/hardware"),
    ("validate", "POST", r"/api/validate-yaml"),
    ("settings", "PUT", r"/api/spaces/(?P<id>[^/]+/[^/]+)/settings"),
    ("tree", "GET", r"/api/spaces/(?P<id>[^/]+/[^/]+)/tree/(?P<rev>[^/?]+)"),
    ("commits", "GET", r"/api/spaces/(?P<id>[^/]+/[^/]+)/commits/(?P<rev>[^/?]+)"),
    ("paths", "POST", r"/api/spaces/(?P<id>[^/]+/[^/]+)/paths-info/(?P<rev>[^/?]+)"),
    ("preupload", "POST", r"/api/spaces/(?P<id>[^/]+/[^/]+)/preupload/(?P<rev>[^/?]+)"),
    ("commit", "POST", r"/api/spaces/(?P<id>[^/]+/[^/]+)/commit/(?P<rev>[^/?]+)"),
    ("secrets", "*", r"/api/spaces/(?P<id>[^/]+/[^/]+)/secrets"),
    ("variables", "*", r"/api/spaces/(?P<id>[^/]+/[^/]+)/variables"),
    ("runtime", "GET", r"/api/spaces/(?P<id>[^/]+/[^/]+)/runtime"),
    ("hardware", "POST", r"/api/spaces/(?P<id>[^/]+/[^/]+)/hardware"),
    ("sleep time", "POST", r"/api/spaces/(?P<id>[^/]+/[^/]+)/sleeptime"),
    ("pause", "POST", r"/api/spaces/(?P<id>[^/]+/[^/]+)/pause"),
    ("restart", "POST", r"/api/spaces/(?P<id>[^/]+/[^/]+)/restart"),
    ("volumes", "*", r"/api/spaces/(?P<id>[^/]+/[^/]+)/volumes"),
    ("logs", "GET", r"/api/spaces/(?P<id>[^/]+/[^/]+)/logs/(?P<kind>run|build)"),
    ("info", "GET", r"/api/spaces/(?P<id>[^/]+/[^/]+)(/revision/(?P<rev>[^/?]+))?"),
    ("file", "GET", r"/spaces/(?P<id>[^/]+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<path>.+)"),
    ("app", "*", r"/running/(?P<id>[^/]+/[^/]+)(?P<path>/.*)"),
]


def route_of(method: str, path: str) -> tuple[str, dict[str, str]]:
    """The name of the route for a request, and what its path says; `unknown` where there is none."""
    for name, wanted, pattern in ROUTES:
        if wanted in ("*", method) and (match := re.fullmatch(pattern, path)):
            return name, match.groupdict()
    return "unknown", {}


class Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str, code: str = "", **body: Any) -> None:
        super().__init__(message)
        self.status, self.code, self.body = status, code, {"error": message, **body}


@dataclass(slots=True)
class User:
    """Who a token belongs to. `plan` decides on CPU hardware, `writes` on which owners' Spaces may be changed."""

    name: str
    role: str = "write"
    plan: str = "pro"
    organizations: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()


@dataclass
class Api:
    """The state of a Hub and what each route makes of it; knows nothing of HTTP but requests and statuses.

    Tokens are in `users`, Spaces in `spaces`. `hosts` says under which address a Space is reached, where that is not
    played here at `url`; `builder` is told of each commit and may start what was committed.
    """

    users: dict[str, User] = field(
        default_factory=lambda: {
            "hf_writetoken00": User("ada", "write", "pro", ("team",), ("ada", "team")),
            "hf_readtoken000": User("ada", "read", "pro", ("team",)),
            "hf_freetoken000": User("fred", "write", "free", (), ("fred",)),
        }
    )
    spaces: dict[str, LocalSpace] = field(default_factory=dict)
    hosts: dict[str, str] = field(default_factory=dict)
    builder: Callable[[LocalSpace], None] | None = None
    url: str = ""

    def carry_out(self, name: str, found: dict[str, str], asked: Exchange) -> Any:
        """The answer of the route `name`, bytes or something for JSON. Raises Refused."""
        if name == "app":
            return self._running(found["id"], found["path"], asked)
        if name == "unknown":
            raise Refused(404, "no such route")
        user = self._user(asked)
        handler = getattr(self, f"_{name.replace(' ', '_')}")
        if "id" not in found:
            return handler(user, asked)
        space = self._space(found["id"], user)
        if asked.method != "GET" and name not in ("preupload", "paths") and not self._may_write(user, space.id):
            raise Refused(403, "You don't have the rights to change this Space")
        return handler(space, asked, **{k: v for k, v in found.items() if k != "id" and v is not None})

    def _user(self, asked: Exchange) -> User | None:
        bearer = asked.headers.get("authorization", "")
        if not bearer:
            return None
        user = self.users.get(bearer.removeprefix("Bearer "))
        if user is None:
            raise Refused(401, "Invalid credentials in Authorization header")
        return user

    def _space(self, id: str, user: User | None) -> LocalSpace:
        space = self.spaces.get(id)
        visible = space and (
            not space.private or (user and id.split("/", maxsplit=1)[0] in (user.name, *user.organizations))
        )
        if space is None or not visible:
            raise Refused(404 if user else 401, "Repository not found", "RepoNotFound")
        return space

    def _may_write(self, user: User | None, id: str) -> bool:
        return user is not None and user.role in ("write", "fineGrained") and _owner(id) in user.writes

    def _whoami(self, user: User | None, _: Exchange) -> Any:
        if user is None:
            raise Refused(401, "Invalid username or password.")
        scoped = [
            {"entity": {"name": owner}, "permissions": ["repo.content.read", "repo.write"]} for owner in user.writes
        ]
        token: dict[str, Any] = {"role": user.role, "displayName": "test"}
        if user.role == "fineGrained":
            token["fineGrained"] = {"scoped": scoped, "global": []}
        return {
            "type": "user",
            "name": user.name,
            "isPro": user.plan == "pro",
            "orgs": [{"name": o, "roleInOrg": "write"} for o in user.organizations],
            "auth": {"type": "access_token", "accessToken": token},
        }

    def _create(self, user: User | None, asked: Exchange) -> Any:
        data = asked.json
        owner = data.get("organization") or (user.name if user else "")
        id = f"{owner}/{data['name']}"
        if not self._may_write(user, id):
            raise Refused(403, f"You don't have the rights to create a space under the namespace {owner!r}")
        if id in self.spaces:
            raise Refused(409, "You already created this space repo", url=f"{self.url}/spaces/{id}")
        hardware = data.get("hardware") or "cpu-basic"
        assert user is not None
        if user.plan == "free" and not hardware.startswith("zero-"):
            raise Refused(402, "Gradio and Docker Spaces require a PRO subscription")
        self.spaces[id] = LocalSpace(
            id,
            data["sdk"],
            data.get("visibility") == "private",
            self.hosts.get(id, f"{self.url}/running/{id}"),
            hardware,
            data.get("sleepTimeSeconds"),
        )
        return {"url": f"{self.url}/spaces/{id}", "name": id}

    def _delete(self, user: User | None, asked: Exchange) -> Any:
        id = f"{asked.json.get('organization') or (user.name if user else '')}/{asked.json['name']}"
        self._space(id, user)
        if not self._may_write(user, id):
            raise Refused(403, "You don't have the rights to delete this Space")
        del self.spaces[id]
        return {}

    def _hardware_list(self, _: User | None, __: Exchange) -> Any:
        names = {"cpu-basic": 0.0, "cpu-upgrade": 0.0005, "t4-small": 0.0067}
        return [
            {
                "name": name,
                "prettyName": name,
                "cpu": "2 vCPU",
                "ram": "16 GB",
                "accelerator": None,
                "unitCostMicroUSD": int(cost * 1e6),
                "unitCostUSD": cost,
                "unitLabel": "minute",
            }
            for name, cost in names.items()
        ]

    def _validate(self, _: User | None, asked: Exchange) -> Any:
        match = re.search(r"^short_description: (.*)$", asked.json["content"], re.MULTILINE)
        if match and len(match[1]) > 60:
            raise Refused(400, "short_description", errors=[{"message": "short_description is too long"}], warnings=[])
        return {"errors": [], "warnings": []}

    def _info(self, space: LocalSpace, _: Exchange, rev: str = "main") -> Any:
        return {
            "id": space.id,
            "_id": "1",
            "sha": space.head.oid,
            "private": space.private,
            "sdk": space.sdk,
            "author": _owner(space.id),
            "host": space.host,
            "subdomain": space.id.replace("/", "-"),
            "siblings": [{"rfilename": path} for path in space.files],
            "cardData": {"sdk": space.sdk},
            "runtime": {"stage": space.stages[0], "hardware": {"current": space.hardware, "requested": space.hardware}},
            "tags": [],
        }

    def _settings(self, space: LocalSpace, asked: Exchange) -> Any:
        space.private = asked.json["visibility"] == "private"
        return {"private": space.private}

    def _at(self, space: LocalSpace, rev: str) -> dict[str, bytes]:
        if rev == "main":
            return space.files
        commit = next((c for c in space.commits if c.oid == rev), None)
        if commit is None:
            raise Refused(404, "Revision not found", "RevisionNotFound")
        return commit.files

    def _tree(self, space: LocalSpace, _: Exchange, rev: str) -> Any:
        return [_entry(path, content) for path, content in sorted(self._at(space, rev).items())]

    def _paths(self, space: LocalSpace, asked: Exchange, rev: str) -> Any:
        files = self._at(space, rev)
        data = asked.json if asked.body.startswith(b"{") else {"paths": _form(asked.body)}
        paths = [data["paths"]] if isinstance(data["paths"], str) else data["paths"]
        return [_entry(path, files[path]) for path in paths if path in files]

    def _file(self, space: LocalSpace, _: Exchange, rev: str, path: str) -> bytes:
        files = self._at(space, rev)
        if path not in files:
            raise Refused(404, "Entry not found", "EntryNotFound")
        return files[path]

    def _commits(self, space: LocalSpace, _: Exchange, rev: str) -> Any:
        return [
            {"id": c.oid, "title": c.title, "message": "", "authors": [{"user": "ada"}], "date": c.date}
            for c in reversed(space.commits)
        ]

    def _preupload(self, space: LocalSpace, asked: Exchange, rev: str) -> Any:
        files = self._at(space, rev)
        return {
            "files": [
                {
                    "path": f["path"],
                    "uploadMode": "regular",
                    "shouldIgnore": False,
                    **({"oid": oid_of(files[f["path"]])} if f["path"] in files else {}),
                }
                for f in asked.json["files"]
            ]
        }

    def _commit(self, space: LocalSpace, asked: Exchange, rev: str) -> Any:
        files, title = dict(space.files), ""
        for key, value in asked.operations:
            match key:
                case "header":
                    title = value["summary"]
                    if value.get("parentCommit") not in (None, space.head.oid):
                        raise Refused(412, "A commit has happened since. Please refresh and try again.")
                case "file":
                    content = base64.b64decode(value["content"])
                    if b"\0" in content:
                        raise Refused(400, "Binary files are refused outside LFS")
                    files[value["path"]] = content
                case "deletedFile":
                    if files.pop(value["path"], None) is None:
                        raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
                case _:
                    raise Refused(400, f"{key} is not played here")
        commit = space.commit(title, files)
        if self.builder is not None:
            self.builder(space)
        return {"commitUrl": f"{self.url}/spaces/{space.id}/commit/{commit.oid}", "commitOid": commit.oid}

    def _secrets(self, space: LocalSpace, asked: Exchange) -> Any:
        if asked.method == "GET":
            return {k: {"description": "", "updatedAt": v["updatedAt"]} for k, v in space.secrets.items()}
        return _keep(space, space.secrets, asked) and {}

    def _variables(self, space: LocalSpace, asked: Exchange) -> Any:
        if asked.method != "GET":
            _keep(space, space.variables, asked)
        return space.variables

    def _runtime(self, space: LocalSpace, _: Exchange) -> Any:
        return space.runtime()

    def _hardware(self, space: LocalSpace, asked: Exchange) -> Any:
        owner = next(u for u in self.users.values() if u.name == _owner(space.id) or _owner(space.id) in u.writes)
        if owner.plan == "free" and not asked.json["flavor"].startswith("zero-"):
            raise Refused(402, "This hardware requires a payment method")
        space.hardware = asked.json["flavor"]
        space.restarted()
        return space.runtime()

    def _sleep_time(self, space: LocalSpace, asked: Exchange) -> Any:
        space.sleep_time = asked.json["seconds"]
        return space.runtime()

    def _pause(self, space: LocalSpace, _: Exchange) -> Any:
        space.stages.clear()
        space.stages.append("PAUSED")
        return space.runtime()

    def _restart(self, space: LocalSpace, asked: Exchange) -> Any:
        space.stages.clear()
        space.stages.extend(space.build_script if "factory=true" in asked.query else RESTART)
        return {"stage": space.stages[0], "hardware": {"current": space.hardware}}

    def _volumes(self, space: LocalSpace, asked: Exchange) -> Any:
        space.volumes = asked.json["volumes"] if asked.method == "PUT" else []
        space.restarted()
        return {}

    def _logs(self, space: LocalSpace, _: Exchange, kind: str) -> bytes:
        lines = space.build_log if kind == "build" else space.run_log
        # written a while ago: the client drops what is newer than the answer's own date
        events = [json.dumps({"data": f"{line}\n", "timestamp": "2026-01-01T00:00:00.000Z"}) for line in lines]
        return "".join(f"data: {event}\n\n" for event in events).encode() + b"data:\n\n"

    def _running(self, id: str, path: str, asked: Exchange) -> Any:
        """The Space's own address, as the proxy in front of it behaves: 404 to whoever may not see it."""
        bearer = asked.headers.get("x-hf-authorization") or asked.headers.get("authorization") or ""
        user = self.users.get(bearer.removeprefix("Bearer "))
        space = self._space(id, user)
        if space.stages[0] == "SLEEPING":
            space.stages = type(space.stages)(["APP_STARTING", "RUNNING"])
            raise Refused(503, "The Space is waking up")
        if space.running is None or path != "/healthz":
            raise Refused(503 if space.running is None else 404, "nothing here")
        with suppress(KeyError):
            return {
                "status": "ok",
                "build": space.running.files["BUILD"].decode().strip(),
                "settings": hashlib.sha256(space.note.encode()).hexdigest()[:12],
                "sandbox": {"level": "full"},
            }
        raise Refused(500, "the build says nothing of itself")


def _owner(id: str) -> str:
    return id.partition("/")[0]


def _entry(path: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "oid": oid_of(content), "size": len(content)}


def _form(body: bytes) -> list[str]:
    return parse_qs(body.decode())["paths"]


def _keep(space: LocalSpace, kept: dict[str, dict[str, str]], asked: Exchange) -> bool:
    data = asked.json
    if asked.method == "DELETE":
        if kept.pop(data["key"], None) is None:
            raise Refused(404, "no such key")
    else:
        kept[data["key"]] = {"value": data["value"], "updatedAt": stamp()}
    space.restarted()
    return True
