# A scheduler of the Mesos v1 API whose tasks use a persistent volume: volumes.py MASTER [FRAMEWORK-ID write|read]
# It prints what it is told, a line each, and ends with 0 when all went as it should. With an id it does one half of it, and
# leaves its framework to the next.
import http.client, json, sys

MASTER, ID, PART = (sys.argv + [None, None])[1:4]
HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}
RESERVATION = [{"type": "DYNAMIC", "role": "web", "labels": {"labels": [{"key": "app", "value": "db"}]}}]

offers = []  # that stand
framework = {"user": "", "name": "volumes", "roles": ["web"], "failover_timeout": 600,
             "capabilities": [{"type": "MULTI_ROLE"}, {"type": "RESERVATION_REFINEMENT"}, {"type": "PARTITION_AWARE"}]}
named = {"framework_id": {"value": ID}} if ID else {}
framework.update({"id": {"value": ID}} if ID else {})
connection = http.client.HTTPConnection(MASTER, timeout=60)
connection.request("POST", "/api/v1/scheduler",
                   json.dumps({"type": "SUBSCRIBE", "subscribe": {"framework_info": framework}, **named}), HEADERS)
stream = connection.getresponse()
assert stream.status == 200, (stream.status, stream.read())
stream_id = stream.getheader("Mesos-Stream-Id")


def event():
    while True:
        told = json.loads(stream.read(int(stream.readline())))
        if told["type"] == "HEARTBEAT":
            continue
        print(json.dumps(told), flush=True)
        if told["type"] == "UPDATE":
            status = told["update"]["status"]
            if "uuid" in status:
                call("ACKNOWLEDGE", acknowledge={key: status[key] for key in ("agent_id", "task_id", "uuid")})
        elif told["type"] == "UPDATE_OPERATION_STATUS":
            status = told["update_operation_status"]["status"]
            assert status["state"] == "OPERATION_FINISHED", status
            call("ACKNOWLEDGE_OPERATION_STATUS", acknowledge_operation_status={
                "agent_id": status["agent_id"], "operation_id": status["operation_id"],
                "uuid": status["uuid"]["value"]})
        elif told["type"] == "OFFERS":
            offers.extend(told["offers"]["offers"])
        elif told["type"] == "RESCIND":
            offers[:] = [offer for offer in offers if offer["id"] != told["rescind"]["offer_id"]]
        return told


def call(kind, **parts):
    answers = http.client.HTTPConnection(MASTER, timeout=60)
    body = json.dumps({"type": kind, "framework_id": framework_id, **parts})
    answers.request("POST", "/api/v1/scheduler", body, {**HEADERS, "Mesos-Stream-Id": stream_id})
    answer = answers.getresponse()
    assert answer.status == 202, (kind, answer.status, answer.read())


def scalar(name, value, **more):
    return {"name": name, "type": "SCALAR", "scalar": {"value": value}, **more}


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
    while not all(any(has(it)(offer) for offer in offers) for it in wanted):
        event()
    taken = offers[:]
    offers.clear()
    return taken


def accept(taken, *operations):
    call("ACCEPT", accept={"offer_ids": [offer["id"] for offer in taken], "filters": {"refuse_seconds": 0},
                           "operations": list(operations)})


def run(name, command, path, taken, *before):
    task = {"name": name, "task_id": {"value": name}, "agent_id": taken[0]["agent_id"],
            "command": {"value": command}, "resources": [scalar("cpus", 0.5), scalar("mem", 32), volume(path)]}
    accept(taken, *before, {"type": "LAUNCH", "launch": {"task_infos": [task]}})
    while True:
        told = event()
        if told["type"] == "UPDATE" and told["update"]["status"]["task_id"]["value"] == name:
            state = told["update"]["status"]["state"]
            if state not in ("TASK_STARTING", "TASK_RUNNING"):
                assert state == "TASK_FINISHED", told
                return


subscribed = event()
framework_id = subscribed["subscribed"]["framework_id"]
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
accept(take(volume("x")), destroy, unreserve)
run("anew", "test -d data && test ! -e data/file", "data", take(scalar("disk", 8), *plain),
    {**reserve, "id": {"value": "reserve again"}}, {**create, "id": {"value": "create again"}})
call("TEARDOWN")
