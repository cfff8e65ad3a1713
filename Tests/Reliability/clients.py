"""Clients of nginx, Redis and PostgreSQL over the network, in asyncio: sessions that check every answer, and sessions
that are cut in the middle of a request. Each session is a coroutine that raises when an answer is not what it must be."""
import asyncio
import random
import socket
import ssl
import struct

SECONDS = 30  # Longer than any answer takes; a session that waits longer has found a fault.


class Wrong(Exception):
    """An answer that is not what it must be."""


def expect(condition, what):
    if not condition:
        raise Wrong(what)


def cut(writer):
    """Closes with a reset, as the kernel does for a client that is killed with data unread."""
    made = writer.get_extra_info("socket")
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Place:
    """Where the servers are, and the seeded source of all choices."""

    def __init__(self, address, seed):
        self.address, self.random = address, random.Random(seed)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.tls.check_hostname, self.tls.verify_mode = False, ssl.CERT_NONE

    async def connect(self, port, tls=False):
        return await asyncio.open_connection(self.address, port, ssl=self.tls if tls else None)


# nginx -------------------------------------------------------------------------------------------------------------

async def http_get(reader, writer, path, extra=""):
    writer.write(f"GET {path} HTTP/1.1\r\nHost: test\r\n{extra}\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    expect(head.startswith("HTTP/1.1 200"), head)
    fields = {line.split(":", 1)[0].lower(): line.split(":", 1)[1].strip() for line in head.split("\r\n")[1:] if ":" in line}
    if "content-length" in fields:
        return await reader.readexactly(int(fields["content-length"])), fields
    body = b""
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return body, fields


async def http_session(place):
    """A kept connection with a few requests, plain, through TLS or through the proxy. A server that is told to reload
    closes kept connections between requests (RFC 9112 section 9.3.1): the rest of the session is not asked then."""
    kind = place.random.choice(["plain", "plain", "proxy", "tls"])
    reader, writer = await place.connect({"plain": 80, "proxy": 81, "tls": 443}[kind], kind == "tls")
    try:
        for turn in range(place.random.randint(1, 15)):
            path, size = place.random.choice([("/small.html", 6), ("/small.html", 6), ("/middle.txt", None)])
            zipped = path == "/middle.txt" and place.random.random() < 0.5
            try:
                body, fields = await http_get(reader, writer, path, "Accept-Encoding: gzip\r\n" if zipped else "")
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                if turn > 0 and not getattr(error, "partial", b""):
                    return
                raise
            expect(size is None or len(body) == size, f"{path}: {len(body)} bytes")
            expect(not zipped or fields.get("content-encoding") == "gzip", "not zipped")
            if fields.get("connection") == "close":
                return
    finally:
        writer.transport.abort() if place.random.random() < 0.3 else writer.close()


async def http_cut(place):
    """Half a request, or a large answer of which the beginning is read."""
    reader, writer = await place.connect(place.random.choice([80, 81]))
    if place.random.random() < 0.5:
        writer.write(b"POST /small.html HTTP/1.1\r\nHost: te")
        await writer.drain()
    else:
        writer.write(b"GET /large.bin HTTP/1.1\r\nHost: test\r\n\r\n")
        await reader.readexactly(place.random.randint(1, 200000))
    cut(writer)


# Redis -------------------------------------------------------------------------------------------------------------

def redis_command(*words):
    words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


async def redis_answer(reader):
    line = (await reader.readuntil(b"\r\n"))[:-2]
    kind, rest = line[:1], line[1:]
    expect(kind != b"-", line.decode())
    if kind in b"+:":
        return int(rest) if kind == b":" else rest
    if kind == b"$":
        return None if rest == b"-1" else (await reader.readexactly(int(rest) + 2))[:-2]
    return [await redis_answer(reader) for _ in range(max(0, int(rest)))]


async def redis_session(place):
    """A pipeline whose answers are known, a script, and a list that is waited for."""
    reader, writer = await place.connect(6379)
    key = f"k{place.random.randrange(2000)}:{id(writer)}"
    value = place.random.randbytes(place.random.choice([10, 100, 1000, 100000]))
    for words, answer in [
            (("SET", key, value, "EX", 60), b"OK"), (("GET", key), value), (("STRLEN", key), len(value)),
            (("RPUSH", key + "l", *range(20)), 20), (("EXPIRE", key + "l", 60), 1),
            (("LRANGE", key + "l", 0, 2), [b"0", b"1", b"2"]),
            (("EVAL", "local s=0 for i=1,100 do s=s+i end return s+redis.call('STRLEN',KEYS[1])", 1, key), 5050 + len(value)),
            (("BLPOP", key + "l", 1), [(key + "l").encode(), b"0"]), (("DEL", key, key + "l"), 2)]:
        writer.write(redis_command(*words))
        got = await redis_answer(reader)
        expect(got == answer, f"{words[0]}: {got!r:.80}")
    batch = place.random.randint(1, 200)
    writer.write(redis_command("INCR", "counter") * batch)
    counts = [await redis_answer(reader) for _ in range(batch)]
    expect(counts == sorted(set(counts)), "INCR went back")
    writer.close()


async def redis_cut(place):
    """Half of a large value, or a wait that nobody will end."""
    reader, writer = await place.connect(6379)
    writer.write(redis_command("SET", "never", b"x" * 200000)[:100000] if place.random.random() < 0.5
                 else redis_command("BLPOP", "nothing", 0))
    await writer.drain()
    await asyncio.sleep(place.random.random() * 0.2)
    cut(writer)


# PostgreSQL --------------------------------------------------------------------------------------------------------

class Postgres:
    """The simple query protocol, version 3, without passwords."""

    async def open(self, place):
        self.reader, self.writer = await place.connect(5432)
        parameters = b"user\0postgres\0database\0postgres\0\0"
        self.writer.write(struct.pack("!ii", len(parameters) + 8, 196608) + parameters)
        await self.until_ready()
        return self

    async def until_ready(self):
        rows = []
        while True:
            kind, size = struct.unpack("!ci", await self.reader.readexactly(5))
            body = await self.reader.readexactly(size - 4)
            if kind == b"E":
                raise Wrong(body.replace(b"\0", b" ").decode(errors="replace"))
            if kind == b"D":
                rows.append(self.row(body))
            if kind == b"Z":
                return rows

    def row(self, body):
        values, place = [], 2
        for _ in range(struct.unpack_from("!h", body)[0]):
            size = struct.unpack_from("!i", body, place)[0]
            values.append(None if size < 0 else body[place + 4:place + 4 + size].decode())
            place += 4 + max(0, size)
        return values

    def send(self, text):
        text = text.encode() + b"\0"
        self.writer.write(b"Q" + struct.pack("!i", len(text) + 4) + text)

    async def ask(self, text):
        self.send(text)
        return await self.until_ready()

    def leave(self):
        self.writer.write(b"X\0\0\0\4")
        self.writer.close()


SCHEMA = """create table if not exists account(id int primary key, balance bigint not null) with (fillfactor=60);
insert into account select i, 1000 from generate_series(1, 500) i on conflict do nothing"""


async def postgres_session(place):
    """Transfers between accounts: the sum of all balances stays. Ordered by number, so that nobody dead-locks."""
    server = await Postgres().open(place)
    for _ in range(place.random.randint(1, 5)):
        a, b = sorted(place.random.sample(range(1, 501), 2))
        amount = place.random.randint(1, 100)
        await server.ask("begin")
        await server.ask(f"update account set balance = balance - {amount} where id = {a}")
        await server.ask(f"update account set balance = balance + {amount} where id = {b}")
        await server.ask("commit" if place.random.random() < 0.9 else "rollback")
    if place.random.random() < 0.2:
        expect(await server.ask("select sum(balance), count(*) from account") == [["500000", "500"]], "money was lost")
        rows = await server.ask("select i, md5(i::text) from generate_series(1, 500) i order by 2 limit 3")
        expect(len(rows) == 3, str(rows))
    server.leave() if place.random.random() < 0.7 else server.writer.close()


async def postgres_cut(place):
    """In the middle of a transaction, of a sleep, of a large answer, or of the start of the session."""
    if place.random.random() < 0.2:
        _, writer = await place.connect(5432)
        writer.write(b"\0\0\0")
        await writer.drain()
        return cut(writer)
    server = await Postgres().open(place)
    kind = place.random.randrange(3)
    if kind == 0:
        await server.ask("begin")
        await server.ask(f"update account set balance = 0 where id = {place.random.randint(1, 500)}")
    else:
        server.send("select pg_sleep(0.5)" if kind == 1 else "select repeat('x', 1000) from generate_series(1, 2000)")
        await server.writer.drain()
        if kind == 2:
            await server.reader.readexactly(1000)
    cut(server.writer)


# Sessions by weight.
SESSIONS = [(http_session, 30), (http_cut, 8), (redis_session, 25), (redis_cut, 8), (postgres_session, 12), (postgres_cut, 6)]
