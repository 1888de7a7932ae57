# An executor of the Mesos v1 API, for tests: what a task's data says is done, what it is told is written down.
import base64, http.client, json, os, sys, time, uuid

AGENT = os.environ["MESOS_AGENT_ENDPOINT"]
FRAMEWORK = {"value": os.environ["MESOS_FRAMEWORK_ID"]}
EXECUTOR = {"value": os.environ["MESOS_EXECUTOR_ID"]}
PATH = "/slave%281%29/api/v1/executor"
HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}
TOKEN = os.environ.get("MESOS_EXECUTOR_AUTHENTICATION_TOKEN")
if TOKEN:
    HEADERS["Authorization"] = "Bearer " + TOKEN

tasks = {}    # told to start, and no update of it acknowledged
updates = {}  # by their uuid, not acknowledged


def note(name, line):
    with open(name, "a") as file:
        file.write(line + "\n")


def body(kind, **parts):
    return json.dumps({"type": kind, "framework_id": FRAMEWORK, "executor_id": EXECUTOR, **parts})


def call(kind, **parts):
    connection = http.client.HTTPConnection(AGENT)
    connection.request("POST", PATH, body(kind, **parts), HEADERS)
    answer = connection.getresponse()
    text = answer.read().decode()
    if answer.status != 202:
        note("refusals", "%s %d %s" % (kind, answer.status, text))
    connection.close()


def update(task_id, state, **more):
    name = base64.b64encode(uuid.uuid4().bytes).decode()
    status = {"task_id": task_id, "state": state, "source": "SOURCE_EXECUTOR", "uuid": name,
              "timestamp": time.time(), **more}
    updates[name] = {"status": status}
    try:
        call("UPDATE", update=updates[name])
    except OSError:
        pass  # said with the next SUBSCRIBE


def launch(task):
    task_id = task["task_id"]
    tasks[task_id["value"]] = task
    note("launches", task_id["value"])
    what = base64.b64decode(task["data"]).decode()
    if what == "die":
        os._exit(3)
    if what == "silence":
        return
    if what.startswith("write "):
        note(what.split()[1], task_id["value"])
    data = base64.b64encode(b"up " + task_id["value"].encode()).decode()
    update(task_id, "TASK_RUNNING", data=data, healthy=True,
           labels={"labels": [{"key": "a", "value": "b"}]})
    if what == "finish":
        update(task_id, "TASK_FINISHED", message="all done")


def told(event):
    kind = event["type"]
    if kind == "SUBSCRIBED":
        note("subscribed", json.dumps(event["subscribed"]))
    elif kind == "LAUNCH":
        launch(event["launch"]["task"])
    elif kind == "LAUNCH_GROUP":
        group = event["launch_group"]["task_group"]["tasks"]
        note("groups", " ".join(task["task_id"]["value"] for task in group))
        for task in group:
            launch(task)
    elif kind == "KILL":
        note("kills", json.dumps(event["kill"]))
        update(event["kill"]["task_id"], "TASK_KILLED")
    elif kind == "ACKNOWLEDGED":
        updates.pop(event["acknowledged"]["uuid"], None)
        tasks.pop(event["acknowledged"]["task_id"]["value"], None)
        note("acknowledged", event["acknowledged"]["task_id"]["value"])
    elif kind == "MESSAGE":
        data = base64.b64decode(event["message"]["data"])
        call("MESSAGE", message={"data": base64.b64encode(data[::-1]).decode()})
    elif kind == "SHUTDOWN":
        if "stays" not in sys.argv:
            os._exit(0)
        note("shutdowns", "asked")


def subscribe():
    connection = http.client.HTTPConnection(AGENT)
    listed = {"unacknowledged_tasks": list(tasks.values()), "unacknowledged_updates": list(updates.values())}
    connection.request("POST", PATH, body("SUBSCRIBE", subscribe=listed), HEADERS)
    answer = connection.getresponse()
    if answer.status != 200:
        note("refusals", "SUBSCRIBE %d %s" % (answer.status, answer.read().decode()))
        return
    while True:
        length = answer.readline()
        if not length:
            return
        told(json.loads(answer.read(int(length))))


note("up", str(os.getpid()))
if "late" in sys.argv:
    time.sleep(1000)
while True:
    try:
        subscribe()
    except (OSError, http.client.HTTPException, ValueError):
        pass
    time.sleep(0.02)
