"""Who is let in, and what must be said before others may ask."""

import asyncio

import pytest
from cryptography.hazmat.primitives import serialization

from models.config import ConfigError, from_dict
from pipelines.serve import ServeConfig, guard
from pipelines.serve.guard import Guard, Tokens, check_files

OLD, NEW = "an-old-token-of-24-chars", "a-new-token-of-24-chars!"


@pytest.fixture
def file(tmp_path):
    made = tmp_path / "tokens"
    made.write_text(f"# of the app\n{OLD}\n")
    return made


def asked(app: Guard, *authorization: str, path: str = "/rank", root: str = "") -> tuple[int, bytes]:
    """Status and body of an answer."""
    got: list[dict] = []

    async def send(message):
        got.append(message)

    async def receive():
        raise AssertionError("the body is not read")

    headers = [(b"authorization", text.encode("latin-1")) for text in authorization]
    asyncio.run(app({"type": "http", "path": root + path, "root_path": root, "headers": headers}, receive, send))
    return got[0]["status"], got[1]["body"]


def guarded(file) -> Guard:
    class Inside:
        routes = ("/rank",)

        async def __call__(self, scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"in"})

    return Guard(Inside(), Tokens(file))


def test_who_bears_the_token_is_let_in(file):
    app = guarded(file)
    assert app.routes == ("/rank",)
    assert asked(app, f"Bearer {OLD}") == (200, b"in") == asked(app, f"bearer  {OLD}")
    wrong = [
        (),
        (OLD,),
        (f"Basic {OLD}",),
        ("Bearer ",),
        (f"Bearer {OLD}x",),
        (f"Bearer {OLD[:-1]}",),
        ("Bearer # of the app",),
    ]
    for headers in (*wrong, ("Bearer \xff\xfe",)):
        status, body = asked(app, *headers)
        assert status == 401 and b'"loc":["header","authorization"]' in body and OLD.encode() not in body
    assert asked(app, path="/healthz") == (200, b"in") == asked(app, path="/healthz", root="/live")
    for path in ("/model", "/docs", "/openapi.json", "/healthz/../rank", "/live/healthz"):
        assert asked(app, path=path)[0] == 401


def test_a_token_is_replaced_without_a_gap(file, monkeypatch):
    monkeypatch.setattr(guard, "LOOK_SECONDS", -1.0)
    app = guarded(file)
    file.write_text(f"{OLD}\n{NEW}\n")
    assert asked(app, f"Bearer {OLD}")[0] == asked(app, f"Bearer {NEW}")[0] == 200
    file.unlink()  # while it is replaced, what was known holds
    assert asked(app, f"Bearer {NEW}")[0] == 200
    file.write_text("short\n")
    assert asked(app, f"Bearer {NEW}")[0] == 200
    file.write_text(f"{NEW}\n")
    assert (asked(app, f"Bearer {OLD}")[0], asked(app, f"Bearer {NEW}")[0]) == (401, 200)


def test_files_of_other_systems_hold_tokens_and_a_file_without_one_is_told_once(file, monkeypatch, caplog):
    monkeypatch.setattr(guard, "LOOK_SECONDS", -1.0)
    file.write_bytes(b"\xef\xbb\xbf# of the app\r\n\r\n" + OLD.encode() + b"\r\n  " + NEW.encode() + b" \r\n")
    app = guarded(file)
    assert asked(app, f"Bearer {OLD}")[0] == asked(app, f"Bearer {NEW}")[0] == 200 and guard.first_token(file) == OLD
    file.write_bytes(b"\xef\xbb\xbf" + NEW.encode())
    assert (asked(app, f"Bearer {OLD}")[0], asked(app, f"Bearer {NEW}")[0]) == (401, 200) and not caplog.messages
    file.write_text("")  # locks nobody out, and is not passed over in silence
    assert [asked(app, f"Bearer {NEW}")[0] for _ in range(3)] == [200] * 3
    file.unlink()
    assert [asked(app, f"Bearer {NEW}")[0] for _ in range(3)] == [200] * 3
    assert len(caplog.messages) == 2 and all(text.startswith("The tokens of before hold: ") for text in caplog.messages)


def test_a_websocket_needs_a_token_too(file):
    sent = []

    async def send(message):
        sent.append(message)

    async def run():
        await guarded(file)({"type": "websocket", "path": "/healthz", "headers": []}, None, send)

    asyncio.run(run())
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_certificate_and_key_are_tried_before_anything_starts(tmp_path, file):
    from tests.pipelines.serving import certificate

    cert, key = certificate(tmp_path)
    config = lambda cert, key: ServeConfig(tls_certificate=cert, tls_key=key, token_file=file)
    check_files(config(cert, key))
    (tmp_path / "other").mkdir()
    other = certificate(tmp_path / "other")[1]
    (tmp_path / "none").write_text("no key")
    locked = tmp_path / "locked"
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    locked.write_bytes(private.private_bytes(pem, form, serialization.BestAvailableEncryption(b"secret")))
    with pytest.raises(ConfigError, match=r"serve\.tls_key .*nowhere cannot be read \(No such file or directory\)"):
        check_files(config(cert, tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"serve\.tls_certificate .*nowhere cannot be read"):
        check_files(config(tmp_path / "nowhere", key))
    for wrong in (other, tmp_path / "none", locked):
        with pytest.raises(
            ConfigError, match=r"cannot be used \(.+\)\. They must be PEM files that belong together, the key wi"
        ):
            check_files(config(cert, wrong))
    file.write_text("")
    with pytest.raises(ConfigError, match="must hold a token a line"):
        check_files(config(cert, key))


def test_a_file_without_a_token_is_told(tmp_path, file):
    with pytest.raises(ConfigError, match=r"serve\.token_file .*nowhere cannot be read \(No such file or directory\)"):
        Tokens(tmp_path / "nowhere")
    for text in ("", "# only this\n", "short\n", f"{OLD}\nshort\n"):
        file.write_text(text)
        with pytest.raises(ConfigError, match=r"must hold a token a line, each of 16 characters at least"):
            Tokens(file)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "localhost", "::1"])
def test_on_this_machine_nothing_is_asked_for(host):
    ServeConfig(host=host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "ranker.example.org"])
def test_beyond_it_a_token_and_a_certificate_are(host):
    for more in ({}, {"token_file": "/t"}, {"tls_certificate": "/c", "tls_key": "/k"}):
        with pytest.raises(ConfigError, match=r"is reached from other machines\. Set token_file, and tls_certificate"):
            from_dict(ServeConfig, {"host": host, **more})
    from_dict(ServeConfig, {"host": host, "token_file": "/t", "tls_certificate": "/c", "tls_key": "/k"})
    assert not from_dict(ServeConfig, {"host": host, "open": True}).is_loopback


def test_certificates_are_for_rays_own_proxy():
    with pytest.raises(ConfigError, match=r"needs both of tls_certificate and tls_key"):
        from_dict(ServeConfig, {"tls_key": "/k"})
    with pytest.raises(ConfigError, match=r"haproxy takes no certificate, as Ray starts it\. End TLS in what stands before"):
        from_dict(ServeConfig, {"proxy": "haproxy", "tls_certificate": "/c", "tls_key": "/k"})


@pytest.mark.parametrize(("replicas", "cpus", "wanted"), [("auto", 4, 2), ("auto", 2, 2), ("auto", 1.9, 1), (3, 1, 3)])
def test_two_replicas_where_the_cpus_are_there(replicas, cpus, wanted):
    pytest.importorskip("ray")
    from pipelines.serve.app import replicas_of

    assert replicas_of(ServeConfig(replicas=replicas), lambda: {"CPU": cpus}) == wanted
