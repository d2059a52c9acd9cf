"""A client as users write one, against httpbin behind Sidekey.

usage: client.py BASE KEY SLOW_KEY
SLOW_KEY has a bucket of two requests that gains one per second.
"""

import json
import sys
import time

import requests

BASE, KEY, SLOW_KEY = sys.argv[1:4]


def keep_alive(session):
    """One connection serves request after request, refused ones included."""
    for number in range(20):
        headers = {"Authorization": "Bearer nonsense"} if number % 5 == 4 else {}
        answer = session.get(f"{BASE}/get", params={"n": number}, headers=headers)
        assert answer.status_code == (401 if headers else 200), answer.status_code
    pools = session.get_adapter(BASE).poolmanager.pools
    connections = [pools[key].num_connections for key in pools.keys()]
    assert connections == [1], connections


def key_is_hidden(session):
    seen = session.get(f"{BASE}/headers").json()["headers"]
    names = {name.lower() for name in seen}
    assert "authorization" not in names, seen
    assert "x-sidekey-key-id" in names, seen
    assert KEY not in json.dumps(seen)


def redirects(session):
    answer = session.get(f"{BASE}/redirect/3")
    assert answer.status_code == 200 and len(answer.history) == 3, answer.history
    answer = session.get(f"{BASE}/absolute-redirect/2")
    assert answer.status_code == 200 and answer.url == f"{BASE}/get", answer.url
    answer = session.get(f"{BASE}/redirect/1", allow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (302, "/get")


def encodings(session):
    for name, field in [("gzip", "gzipped"), ("deflate", "deflated")]:
        answer = session.get(f"{BASE}/{name}")
        assert answer.headers["Content-Encoding"] == name, answer.headers
        assert answer.json()[field] is True


def bodies(session):
    sent = {"text": "Grüße ☎", "list": list(range(1000))}
    for method in ["POST", "PUT", "PATCH", "DELETE"]:
        answer = session.request(method, f"{BASE}/anything", json=sent).json()
        assert answer["method"] == method and answer["json"] == sent, answer
    form = session.post(f"{BASE}/post", data={"a": "1", "b": ["2", "ä&="]}).json()["form"]
    assert form == {"a": "1", "b": ["2", "ä&="]}, form
    content = "line\r\n" * 200_000
    uploaded = session.post(
        f"{BASE}/post",
        files={"file": ("report.txt", content, "text/plain")},
        data={"why": "test"},
    ).json()
    assert uploaded["files"] == {"file": content}, len(uploaded["files"]["file"])
    assert uploaded["form"] == {"why": "test"}

    def pieces():
        for number in range(100):
            yield f"piece {number}\n".encode()

    chunked = session.post(f"{BASE}/post", data=pieces()).json()
    assert chunked["data"] == b"".join(pieces()).decode(), chunked


def streams(session):
    with session.get(f"{BASE}/stream/20", stream=True) as answer:
        lines = [json.loads(line) for line in answer.iter_lines()]
    assert [line["id"] for line in lines] == list(range(20)), lines
    query = {"duration": 1, "numbytes": 5, "code": 200, "delay": 0}
    with session.get(f"{BASE}/drip", params=query, stream=True) as answer:
        first = next(answer.iter_content(1))
        rest = answer.raw.read()
    assert first + rest == b"*****", (first, rest)
    assert session.get(f"{BASE}/bytes/100000", params={"seed": 1}).content == (
        session.get(f"{BASE}/stream-bytes/100000", params={"seed": 1, "chunk_size": 777}).content
    )
    part = session.get(f"{BASE}/range/1000", headers={"Range": "bytes=10-19"})
    assert part.status_code == 206 and part.content == b"klmnopqrst", part.content


def cookies(session):
    session.get(f"{BASE}/cookies/set", params={"flavour": "oat", "size": "2"})
    assert session.get(f"{BASE}/cookies").json()["cookies"] == {"flavour": "oat", "size": "2"}
    session.get(f"{BASE}/cookies/delete", params={"size": ""})
    assert session.get(f"{BASE}/cookies").json()["cookies"] == {"flavour": "oat"}


def statuses(session):
    for code in [200, 201, 204, 304, 400, 403, 404, 418, 429, 500, 502, 503]:
        for method in ["GET", "POST", "HEAD"]:
            answer = session.request(method, f"{BASE}/status/{code}")
            assert answer.status_code == code, (method, code, answer.status_code)
            assert "RateLimit" in answer.headers, answer.headers
    assert session.options(f"{BASE}/get").status_code == 200
    assert session.head(f"{BASE}/get").headers["Content-Length"] != "0"
    # The service's own login works where the key comes in another field.
    with requests.Session() as other:
        other.headers["X-API-Key"] = KEY
        answer = other.get(f"{BASE}/basic-auth/ada/secret", auth=("ada", "secret"))
        assert answer.status_code == 200 and answer.json()["user"] == "ada", answer.text


def refusals():
    answer = requests.get(f"{BASE}/get")
    assert answer.status_code == 401, answer.status_code
    assert answer.headers["WWW-Authenticate"].startswith("Bearer"), answer.headers
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["status"] == 401


def waiting():
    """A client that honours Retry-After gets through at its first try after waiting."""
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {SLOW_KEY}"
        for _ in range(50):
            answer = session.get(f"{BASE}/get")
            if answer.status_code == 429:
                break
            assert answer.status_code == 200, answer.status_code
        assert answer.status_code == 429, "the limit was never met"
        assert answer.json()["violated-policies"] == ["slow"], answer.text
        time.sleep(int(answer.headers["Retry-After"]))
        again = session.get(f"{BASE}/get")
        assert again.status_code == 200, (again.status_code, answer.headers)


def main():
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {KEY}"
        for part in [keep_alive, key_is_hidden, redirects, encodings, bodies, streams, cookies, statuses]:
            part(session)
            print(part.__name__, "well", flush=True)
    for part in [refusals, waiting]:
        part()
        print(part.__name__, "well", flush=True)


main()
