#!/usr/bin/env python3
"""A Hearth client written only from protocol/README.md, with nothing but Python's standard library: logs in, keeps state and
presence, watches, loses its link and resumes, in both encodings. Exits 0 when all was as specified.

    python3 tests/python/client.py --url ws://127.0.0.1:7700/v1/connect
"""
import argparse, base64, hashlib, itertools, json, os, socket, struct, sys, uuid
from urllib.parse import urlsplit

OPS = {"login": 1, "resume": 2, "logout": 3, "ping": 4, "state.get": 10, "state.patch": 11, "presence.set": 20, "watch": 22,
       "room.join": 30, "room.send": 32, "room.members": 33,
       "ok": 100, "error": 101, "ready": 102, "presence": 110, "room": 111, "message": 112, "bye": 114, "mode": 115, "durable": 117}
NAMES = {number: name for name, number in OPS.items()}


def expect(holds, what):
    if not holds:
        sys.exit(f"FAILED: {what}")


def pack(v):
    """A value as MessagePack; integers and lengths simply in their widest form."""
    if isinstance(v, int) and not isinstance(v, bool):
        return struct.pack(">BQ", 0xCF, v)
    if isinstance(v, str):
        return struct.pack(">BI", 0xDB, len(v.encode())) + v.encode()
    if isinstance(v, dict):
        return struct.pack(">BI", 0xDF, len(v)) + b"".join(pack(k) + pack(v[k]) for k in v)
    if isinstance(v, list):
        return struct.pack(">BI", 0xDD, len(v)) + b"".join(map(pack, v))
    return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[v]


def unpack(data):
    """Takes one value off a bytearray of MessagePack."""
    def number(form):
        raw = bytes(data[:struct.calcsize(form)])
        del data[:len(raw)]
        return struct.unpack(">" + form, raw)[0]

    t = number("B")
    if t < 0x80 or t >= 0xE0:
        return t if t < 0x80 else t - 256
    if t < 0x90 or t >= 0xDE:
        return {unpack(data): unpack(data) for _ in range(t & 0xF if t < 0x90 else number("HI"[t - 0xDE]))}
    if t < 0xA0 or t >= 0xDC:
        return [unpack(data) for _ in range(t & 0xF if t < 0xA0 else number("HI"[t - 0xDC]))]
    if t < 0xC0 or t >= 0xD9:
        return number(f"{t & 0x1F if t < 0xC0 else number('BHI'[t - 0xD9])}s").decode()
    if 0xC4 <= t <= 0xC6:
        return number(f"{number('BHI'[t - 0xC4])}s")
    return number("fdBHIQbhiq"[t - 0xCA]) if t >= 0xCA else {0xC0: None, 0xC2: False, 0xC3: True}[t]


class Client:
    """One link of a player."""

    def __init__(self, url, encoding, last_seq=0):
        self.binary, self.refs, self.pushes, self.last_seq = encoding == "msgpack", itertools.count(1), [], last_seq
        at, key = urlsplit(url), base64.b64encode(os.urandom(16)).decode()
        self.socket = socket.create_connection((at.hostname, at.port or 80), timeout=10)
        self.stream = self.socket.makefile("rb")
        self.socket.sendall((f"GET {at.path} HTTP/1.1\r\nHost: {at.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                             f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
                             f"Sec-WebSocket-Protocol: hearth.v1.{encoding}\r\n\r\n").encode())
        lines = (line.decode().strip() for line in iter(self.stream.readline, b"\r\n"))
        head = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
        expect(head.get("sec-websocket-accept") == accept, "the upgrade is accepted")
        expect(head.get("sec-websocket-protocol") == f"hearth.v1.{encoding}", "the subprotocol is named")

    def write(self, opcode, payload):
        mask, size = os.urandom(4), len(payload)
        length = struct.pack(">B", 0x80 | size) if size < 126 else struct.pack(">BH", 0xFE, size)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        self.socket.sendall(bytes([0x80 | opcode]) + length + mask + masked)

    def read(self):
        """The next frame: op, ref or seq, body; a close is "close" and its code. Numbered pushes are kept."""
        head = self.stream.read(2)
        expect(len(head) == 2, "the link lives")
        opcode, size = head[0] & 0xF, head[1]
        if size > 125:
            size = struct.unpack(">H" if size == 126 else ">Q", self.stream.read(2 if size == 126 else 8))[0]
        payload = self.stream.read(size)
        if opcode == 8:
            return "close", struct.unpack(">H", payload[:2])[0], {}
        if opcode > 8:
            self.write(10, payload) if opcode == 9 else None
            return self.read()
        op, number, body = unpack(bytearray(payload)) if self.binary else json.loads(payload)
        op = NAMES.get(op, op)
        if op in ("presence", "room", "message"):
            expect(number == self.last_seq + 1, f"push {number} follows {self.last_seq}")
            self.last_seq = number
            self.pushes.append((op, body))
        return op, number, body

    def ask(self, op, **body):
        """Sends a request; returns its answer's op and body."""
        ref = next(self.refs)
        frame = [OPS[op], ref, body] if self.binary else [op, ref, body]
        self.write(*((2, pack(frame)) if self.binary else (1, json.dumps(frame).encode())))
        return next((op, body) for op, number, body in iter(self.read, None) if number == ref and op in ("ok", "error", "ready"))

    def push(self, op, fits):
        """Waits until a push of this op fits."""
        while not any(told == op and fits(body) for told, body in self.pushes):
            self.read()

    def presence_of(self, player, status):
        """Waits until a push shows the player in this status."""
        while True:
            for item in (item for op, body in self.pushes if op == "presence" for item in body["items"]):
                if (item["player"], item["status"]) == (player, status):
                    return item
            self.read()


def story(url, encoding):
    ann, bea = (f"{name}-{uuid.uuid4().hex[:8]}" for name in ("ann", "bea"))
    a, b = Client(url, encoding), Client(url, encoding)
    expect(a.ask("state.get")[1]["code"] == "not_logged_in", "nothing comes before login")
    op, ready = a.ask("login", token=f"dev:{ann}", device="pc")
    expect(op == "ready" and ready["player"] == ann and not ready["resumed"] and ready["cseq"] == 0, "login opens a session")
    expect(b.ask("login", token=f"dev:{bea}", status="busy")[0] == "ready", "another player logs in")

    snapshot = a.ask("watch", players=[bea])[1]["presences"]
    expect([(i["player"], i["status"]) for i in snapshot] == [(bea, "busy")], "watch answers with a snapshot")
    expect(b.ask("presence.set", status="playing", activity={"map": "docks"}, cseq=1)[0] == "ok", "presence is set")
    item = a.presence_of(bea, "playing")
    expect(item["activity"] == {"map": "docks"} and item["ver"] > snapshot[0]["ver"], "a watcher learns of a change")

    op, wrote = a.ask("state.patch", set={"name": "Zoë"}, incr={"gold": 5}, ack="durable", cseq=1)
    expect(op == "ok" and wrote["ack"] == "durable" and wrote["state"] == {"gold": 5}, "a durable change is acked")
    got = a.ask("state.get", at_least=wrote["stamp"])[1]
    expect(got["state"] == {"name": "Zoë", "gold": 5} and got["stamp"] >= wrote["stamp"], "a player reads her own write")
    op, error = a.ask("state.patch", set={"name": "x"}, if_state=[wrote["state_stamp"][0], 0], cseq=2)
    expect((op, error["code"], error["temporary"]) == ("error", "state_conflict", False), "if_state guards a change")
    expect(a.ask("state.patch", incr={"gold": 1}, cseq=3)[1].get("expected") == 2, "a gap in cseq is named")

    room = f"party:{ann}"
    alone = a.ask("room.join", room=room, meta={"team": "red"}, cseq=2)[1]
    expect(alone["count"] == 1, "a player enters a room")
    roster = b.ask("room.join", room=room, cseq=2)[1]
    members = [{"player": ann, "meta": {"team": "red"}}, {"player": bea}]
    expect(roster["members"] == members and roster["ver"] > alone["ver"], "who enters sees who is there")
    a.push("room", lambda told: {"player": bea} in told.get("joins", []) and told["count"] == 2)

    a.socket.shutdown(socket.SHUT_RDWR)  # the link is gone, without a word
    expect(b.ask("presence.set", status="away", cseq=3)[0] == "ok", "the other goes on meanwhile")
    b.push("room", lambda told: any(m.get("online") is False for m in told.get("updates", [])))
    expect(b.ask("room.send", room=room, data={"say": "hi"}, cseq=4)[0] == "ok", "a member speaks")
    again = Client(url, encoding, a.last_seq)
    claim = {"session": ready["session"], "ticket": ready["ticket"], "last_seq": a.last_seq, "stamp": got["stamp"]}
    op, back = again.ask("resume", **claim)
    expect(op == "ready" and back["resumed"] and back["session"] == ready["session"], "the session is taken up again")
    expect(back["ticket"] != ready["ticket"] and back["cseq"] == 2 and back["watching"] == [bea], "ready tells where it stands")
    expect("rolled_back" not in back and not back.get("missed"), "nothing was lost")
    expect(back["rooms"] == [room], "rooms are kept")
    again.push("message", lambda told: (told["room"], told["player"], told["data"]) == (room, bea, {"say": "hi"}))
    expect(again.ask("room.members", room=room)[1]["members"] == members, "a room looks as before")
    again.presence_of(bea, "away")
    expect(again.ask("state.patch", incr={"gold": 5}, cseq=1)[1].get("dup") is True, "a repeat is told")
    expect(again.ask("state.get", keys=["gold"])[1]["state"] == {"gold": 5}, "a repeat has no second effect")

    for client in (again, b):
        expect(client.ask("logout")[0] == "ok", "logout is acked")
        expect(next(code for op, code, _ in iter(client.read, None) if op == "close") == 1000, "logout closes with 1000")
    late = Client(url, encoding)
    claim["ticket"] = back["ticket"]
    expect(late.ask("resume", **claim)[1]["code"] == "not_resumable", "a session that ended cannot be resumed")
    expect(late.ask("login", token=f"dev:{ann}")[0] == "ready", "login works on the same link")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="ws://127.0.0.1:7700/v1/connect")
    arguments = parser.parse_args()
    for encoding in ("msgpack", "json"):
        story(arguments.url, encoding)
        print(f"ok: {encoding}")
