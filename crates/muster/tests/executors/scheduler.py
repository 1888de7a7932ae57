# A scheduler of the Mesos v1 API that launches tasks in a custom executor: scheduler.py MASTER EXECUTOR-COMMAND
# It prints what it is told, a line each, and ends with 0 when all went as it should.
import base64, http.client, json, sys, threading

MASTER, COMMAND = sys.argv[1], sys.argv[2]
HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}
RESOURCES = [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.5}},
             {"name": "mem", "type": "SCALAR", "scalar": {"value": 32}}]

offers = []  # that stand
framework = {"user": "", "name": "executors", "roles": ["*"], "failover_timeout": 600, "checkpoint": True,
             "capabilities": [{"type": "MULTI_ROLE"}, {"type": "PARTITION_AWARE"}]}
connection = http.client.HTTPConnection(MASTER, timeout=60)
connection.request("POST", "/api/v1/scheduler",
                   json.dumps({"type": "SUBSCRIBE", "subscribe": {"framework_info": framework}}), HEADERS)
stream = connection.getresponse()
assert stream.status == 200, (stream.status, stream.read())
stream_id = stream.getheader("Mesos-Stream-Id")


def event():
    while True:
        told = json.loads(stream.read(int(stream.readline())))
        if told["type"] == "HEARTBEAT":
            continue
        if told["type"] == "UPDATE":
            status = told["update"]["status"]
            print(json.dumps(status), flush=True)
            if "uuid" in status:
                call("ACKNOWLEDGE", acknowledge={key: status[key] for key in ("agent_id", "task_id", "uuid")})
        elif told["type"] == "OFFERS":
            offers.extend(told["offers"]["offers"])
        elif told["type"] == "RESCIND":
            offers[:] = [offer for offer in offers if offer["id"] != told["rescind"]["offer_id"]]
        else:
            print(json.dumps(told), flush=True)
        return told


def call(kind, **parts):
    answers = http.client.HTTPConnection(MASTER, timeout=60)
    body = json.dumps({"type": kind, "framework_id": framework_id, **parts})
    answers.request("POST", "/api/v1/scheduler", body, {**HEADERS, "Mesos-Stream-Id": stream_id})
    answer = answers.getresponse()
    assert answer.status == 202, (kind, answer.status, answer.read())


def until(wanted):
    while True:
        told = event()
        if wanted(told):
            return told


def is_update(task, state):
    return lambda told: told["type"] == "UPDATE" and \
        told["update"]["status"]["task_id"]["value"] == task and told["update"]["status"]["state"] == state


def cpus(offer):
    return sum(r["scalar"]["value"] for r in offer["resources"] if r["name"] == "cpus")


subscribed = event()
framework_id = subscribed["subscribed"]["framework_id"]
until(lambda told: offers)
offer = offers.pop()
whole = cpus(offer)
executor = {"type": "CUSTOM", "executor_id": {"value": "e1"}, "framework_id": framework_id, "name": "an executor",
            "command": {"value": COMMAND}, "resources": RESOURCES}
tasks = [{"name": task, "task_id": {"value": task}, "agent_id": offer["agent_id"], "executor": executor,
          "data": base64.b64encode(what).decode(), "resources": RESOURCES}
         for task, what in (("t1", b"run"), ("t2", b"run"))]
call("ACCEPT", accept={"offer_ids": [offer["id"]], "filters": {"refuse_seconds": 0},
                       "operations": [{"type": "LAUNCH", "launch": {"task_infos": tasks}}]})
running = set()


def both_run(told):
    for task in ("t1", "t2"):
        if is_update(task, "TASK_RUNNING")(told):
            running.add(task)
    return len(running) == 2


until(both_run)
who = {"agent_id": offer["agent_id"], "executor_id": {"value": "e1"}}
call("MESSAGE", message={**who, "data": base64.b64encode(b"hello").decode()})
heard = until(lambda told: told["type"] == "MESSAGE")["message"]
assert base64.b64decode(heard["data"]) == b"olleh" and heard["executor_id"] == {"value": "e1"}, heard
call("KILL", kill={"task_id": {"value": "t1"}})
until(is_update("t1", "TASK_KILLED"))
call("SHUTDOWN", shutdown=who)
# The executor ends with a task that runs: that has failed, and the framework hears of both.
left = {"task", "executor"}


def all_ended(told):
    if is_update("t2", "TASK_FAILED")(told):
        assert told["update"]["status"]["reason"] == "REASON_EXECUTOR_TERMINATED", told
        left.discard("task")
    if told["type"] == "FAILURE":
        assert told["failure"]["executor_id"] == {"value": "e1"} and told["failure"]["status"] == 0, told
        left.discard("executor")
    return not left


until(all_ended)
# What it held is offered again.
while sum(cpus(offer) for offer in offers) < whole:
    event()


def read(path):
    """Of the agent that an offer names, as tools do."""
    url = offer["url"]
    agent = http.client.HTTPConnection(url["address"]["ip"], url["address"]["port"], timeout=60)
    agent.request("GET", path)
    answer = agent.getresponse()
    assert answer.status == 200, (path, answer.status, answer.read())
    return json.loads(answer.read())


# Tasks that were launched together: their executor is told of all at once.
offer = max(offers, key=cpus)
offers.remove(offer)
disk = {"name": "disk", "type": "SCALAR", "scalar": {"value": 1}}
together = {**executor, "executor_id": {"value": "e2"}, "resources": RESOURCES + [disk]}
group = [{"name": task, "task_id": {"value": task}, "agent_id": offer["agent_id"],
          "data": base64.b64encode(b"run").decode(), "resources": RESOURCES} for task in ("g1", "g2")]
call("ACCEPT", accept={"offer_ids": [offer["id"]], "filters": {"refuse_seconds": 0}, "operations": [
    {"type": "LAUNCH_GROUP", "launch_group": {"executor": together, "task_group": {"tasks": group}}}]})
running.clear()


def all_of_the_group_run(told):
    for task in ("g1", "g2"):
        if is_update(task, "TASK_RUNNING")(told):
            running.add(task)
    return len(running) == 2


until(all_of_the_group_run)
shown = read("/slave%281%29/state")["frameworks"][0]["executors"]
assert [(it["id"], [task["id"] for task in it["tasks"]]) for it in shown] == [("e2", ["g1", "g2"])], shown
told = read("/files/read?offset=0&path=%s/groups" % shown[0]["directory"])
assert told["data"] == "g1 g2\n", told
call("KILL", kill={"task_id": {"value": "g1"}})
until(is_update("g1", "TASK_KILLED"))
call("TEARDOWN")
