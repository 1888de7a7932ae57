# A scheduler of the Mesos v1 API whose tasks use a persistent volume: volumes.py MASTER [FRAMEWORK-ID write|read]
# It ends with 0 when all went as it should. With an id it does one half of it, and leaves its framework to the next.
import sys
from framework import Framework, scalar

MASTER, ID, PART = (sys.argv + [None, None])[1:4]
RESERVATION = [{"type": "DYNAMIC", "role": "web", "labels": {"labels": [{"key": "app", "value": "db"}]}}]

framework = Framework(MASTER, "volumes", ["web"], ["RESERVATION_REFINEMENT"], ID)


def volume(path):
    return scalar("disk", 8, reservations=RESERVATION, disk={
        "persistence": {"id": "db"}, "volume": {"mode": "RW", "container_path": path}})


def has(resource):
    """Whether it is among what stands there in an offer: plain ones as much or more, others the very same."""
    def is_it(other):
        marks = [(it["name"], it.get("reservations"), it.get("disk", {}).get("persistence")) for it in (resource, other)]
        return marks[0] == marks[1] and other["scalar"]["value"] >= resource["scalar"]["value"]
    return lambda offer: any("scalar" in it and is_it(it) for it in offer["resources"])


def take(*wanted):
    """All offers, once they have this together."""
    while not all(any(has(it)(offer) for offer in framework.offers) for it in wanted):
        framework.event()
    taken = framework.offers[:]
    framework.offers.clear()
    return taken


def run(name, command, path, taken, *before):
    task = {"name": name, "task_id": {"value": name}, "agent_id": taken[0]["agent_id"],
            "command": {"value": command}, "resources": [scalar("cpus", 0.5), scalar("mem", 32), volume(path)]}
    framework.accept(taken, *before, {"type": "LAUNCH", "launch": {"task_infos": [task]}})
    while True:
        told = framework.event()
        if told["type"] == "UPDATE" and told["update"]["status"]["task_id"]["value"] == name:
            state = told["update"]["status"]["state"]
            if state not in ("TASK_STARTING", "TASK_RUNNING"):
                assert state == "TASK_FINISHED", told
                return


reserved = scalar("disk", 8, reservations=RESERVATION)
reserve = {"type": "RESERVE", "id": {"value": "reserve"}, "reserve": {"resources": [reserved]}}
create = {"type": "CREATE", "id": {"value": "create"}, "create": {"volumes": [volume("data")]}}
destroy = {"type": "DESTROY", "id": {"value": "destroy"}, "destroy": {"volumes": [volume("data")]}}
unreserve = {"type": "UNRESERVE", "id": {"value": "unreserve"}, "unreserve": {"resources": [reserved]}}
plain = (scalar("cpus", 0.5), scalar("mem", 32))

# What one task writes the next one finds, at another place of its own sandbox.
if PART != "read":
    run("writes", "echo kept > data/file", "data", take(scalar("disk", 8), *plain), reserve, create)
if PART == "write":
    sys.exit()
run("reads", "test \"$(cat deep/er/file)\" = kept && test ! -e data", "deep/er", take(volume("x"), *plain))
# One that is made again under the same name is another.
framework.accept(take(volume("x")), destroy, unreserve)
run("anew", "test -d data && test ! -e data/file", "data", take(scalar("disk", 8), *plain),
    {**reserve, "id": {"value": "reserve again"}}, {**create, "id": {"value": "create again"}})
framework.call("TEARDOWN")
