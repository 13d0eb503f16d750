"""Packs a trace of strace into the form that the test reads: pack.py <trace> <root> <out>.

A record is its kind (one octet) and its fields: paths with a length of one octet, numbers as eight octets, big-endian,
octets as runs. A run is a count (four octets), 0 and the octets, or 1 and the one octet that is repeated; 0 ends them.
"""
import re
import struct
import sys

MKDIR, CREATE, WRITE, TRUNCATE, SYNC, RENAME, REMOVE, SYNC_DIR, MARK = range(1, 10)
CALL = re.compile(r"^\d+\s+(\w+)\((.*)$")


def octets(text):
    return bytes(int(two, 16) for two in text.split("\\x")[1:])


def strings(args):
    return [octets(found).decode() for found in re.findall(r'"((?:\\x..)*)"', args)]


def number(value):
    return struct.pack(">Q", value)


def runs(data):
    out, at = b"", 0
    for run in re.finditer(rb"(.)\1{31,}", data, re.DOTALL):
        if run.start() > at:
            out += struct.pack(">IB", run.start() - at, 0) + data[at:run.start()]
        out += struct.pack(">IB", run.end() - run.start(), 1) + run.group(1)
        at = run.end()
    if at < len(data):
        out += struct.pack(">IB", len(data) - at, 0) + data[at:]
    return out + struct.pack(">I", 0)


def main(trace, root, out):
    def path(name):
        if name == root:
            return b"\0"
        if not name.startswith(root + "/"):
            return None
        inside = name[len(root) + 1:].encode()
        return bytes([len(inside)]) + inside

    records, known, dirs, ends = [], set(), {path(root)}, {}
    for line in open(trace, encoding="ascii"):
        call = CALL.match(line)
        if not call or " = -1 " in line:
            continue
        name, args = call.groups()
        named = re.match(r"\d+<((?:\\x..)*|[^>]*)>", args)
        file = named and (octets(named.group(1)).decode() if "\\x" in named.group(1) else named.group(1))
        file = file and path(file)
        if name == "mkdir":
            there = path(strings(args)[0])
            if there and there not in dirs:
                records.append(bytes([MKDIR]) + there)
                dirs.add(there)
        elif name == "openat" and "O_CREAT" in args:
            there = path(strings(args)[-1])
            if there and there not in known:
                known.add(there)
                records.append(bytes([CREATE]) + there)
        elif name in ("pwrite64", "write") and file:
            data = octets(re.search(r'"((?:\\x..)*)"', args).group(1))
            if file == path(root + "/marks"):
                records.append(bytes([MARK]) + runs(data))
                continue
            if name == "pwrite64":
                offset = int(re.search(r", \d+, (\d+)", args.split('"')[-1]).group(1))
            else:
                offset = ends.get(file, 0)
                ends[file] = offset + len(data)
            records.append(bytes([WRITE]) + file + number(offset) + runs(data))
        elif name == "ftruncate" and file:
            records.append(bytes([TRUNCATE]) + file + number(int(re.search(r", (\d+)", args).group(1))))
        elif name in ("fsync", "fdatasync") and file:
            records.append(bytes([SYNC_DIR if file in dirs else SYNC]) + file)
        elif name.startswith("rename"):
            there = [path(found) for found in strings(args)]
            if all(there):
                records.append(bytes([RENAME]) + there[0] + there[1])
                known.discard(there[0])
                known.add(there[1])
                ends[there[1]] = ends.pop(there[0], 0)
        elif name.startswith("unlink"):
            there = path(strings(args)[-1])
            if there:
                records.append(bytes([REMOVE]) + there)
                known.discard(there)
                ends.pop(there, None)
        elif name == "fallocate":
            sys.exit("fallocate is not packed yet: " + args)
    with open(out, "wb") as packed:
        packed.write(b"".join(records))
    print(len(records), "records")


main(*sys.argv[1:])
