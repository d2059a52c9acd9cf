"""A mail server for tests: STARTTLS or TLS from the beginning, and a login.

    smtp_server.py '{"tls": "starttls", "certificate": ..., "key": ..., "user": ..., "password": ...,
                     "port": 0, "mails": FILE}'

Each mail that it takes is a line of JSON in FILE. Whom a mail is for says what becomes of it: `bounce@` is
refused for good, `later@` the first time, `never@` each time, `abroad@` as a relay does that is not ours, and
for `closing@` the server says that it closes the connection; a sender `stranger@` is refused. A mail to `slow@`
is taken after eight seconds, and one to `silent@` without a word before the connection ends. With
"is_closed_relay" everybody is `abroad@`, with "closes_after" it closes each connection after so many mails, and
with "utf8" it takes addresses outside of ASCII.
"""

import asyncio
import itertools
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

options = json.loads(sys.argv[1])


class Mailbox:
    """What one connection brings."""

    def __init__(self, connection, seen):
        self.connection = connection
        self.seen = seen
        self.taken = 0

    async def handle_MAIL(self, server, session, envelope, address, mail_options):
        if address.startswith("stranger@"):
            return "550 5.7.1 no mail from strangers"
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        local = address.split("@")[0]
        if options.get("is_closed_relay", False) or local == "abroad":
            return "554 5.7.1 <%s>: Relay access denied" % address
        if local == "bounce":
            return "550 5.1.1 there is no such mailbox"
        if not (address.isascii() or envelope.smtp_utf8):
            return "553 5.6.7 nobody said that there are such addresses"
        if local == "closing":
            return "421 4.3.2 the service is shutting down"
        if local == "never" or (local == "later" and address not in self.seen):
            self.seen.add(address)
            return "451 4.7.1 try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        mail = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "login": session.auth_data.decode() if session.auth_data else None,
            "hello": session.host_name,
            "connection": self.connection,
            "is_encrypted": session.ssl is not None or options["tls"] == "implicit",
            "text": envelope.content.decode("utf-8"),
        }
        with open(options["mails"], "a", encoding="utf-8") as file:
            file.write(json.dumps(mail) + "\n")
        self.taken += 1
        if self.taken == options.get("closes_after"):
            # After the answer, which is written next.
            asyncio.get_running_loop().call_soon(server.transport.close)
        to = envelope.rcpt_tos[0].split("@")[0]
        if to == "slow":
            await asyncio.sleep(8)
        if to == "silent":
            server.transport.abort()
        return "250 OK"


def authenticate(server, session, envelope, mechanism, data):
    right = (options["user"].encode(), options["password"].encode())
    is_right = (data.login, data.password) == right
    return AuthResult(success=is_right, handled=is_right, auth_data=data.login)


def context():
    if options["tls"] == "none":
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(options["certificate"], options["key"])
    return made


async def main():
    tls, has_login = context(), options["user"] != ""
    is_start = options["tls"] == "starttls"
    numbers, seen = itertools.count(1), set()

    def connection():
        return SMTP(
            Mailbox(next(numbers), seen),
            hostname="mail.test",
            tls_context=tls if is_start else None,
            require_starttls=is_start,
            enable_SMTPUTF8=options.get("utf8", False),
            auth_required=has_login,
            auth_require_tls=is_start,
            auth_exclude_mechanism=options.get("without", []),
            authenticator=authenticate if has_login else None,
        )

    server = await asyncio.get_running_loop().create_server(
        connection,
        "127.0.0.1",
        options["port"],
        ssl=tls if options["tls"] == "implicit" else None,
    )
    port = server.sockets[0].getsockname()[1]
    print(f"listening on 127.0.0.1:{port}", file=sys.stderr, flush=True)
    await server.serve_forever()


asyncio.run(main())
