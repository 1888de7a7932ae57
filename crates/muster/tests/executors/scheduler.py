# A scheduler of the Mesos v1 API that launches tasks in a custom executor: scheduler.py MASTER EXECUTOR-COMMAND
# It ends with 0 when all went as it should.
import base64, http.client, json, sys
from framework import Framework, amount, is_update, scalar

MASTER, COMMAND = sys.argv[1], sys.argv[2]
RESOURCES = [scalar("cpus", 0.5), scalar("mem", 32)]

framework = Framework(MASTER, "executors", ["*"])
framework.until(lambda told: framework.offers)
offer = framework.offers.pop()
whole = amount(offer, "cpus")
executor = {"type": "CUSTOM", "executor_id": {"value": "e1"}, "framework_id": framework.id, "name": "an executor",
            "command": {"value": COMMAND}, "resources": RESOURCES}
tasks = [{"name": task, "task_id": {"value": task}, "agent_id": offer["agent_id"], "executor": executor,
          "data": base64.b64encode(what).decode(), "resources": RESOURCES}
         for task, what in (("t1", b"run"), ("t2", b"run"))]
framework.accept([offer], {"type": "LAUNCH", "launch": {"task_infos": tasks}})
framework.all_of(is_update(task, "TASK_RUNNING") for task in ("t1", "t2"))
who = {"agent_id": offer["agent_id"], "executor_id": {"value": "e1"}}
framework.call("MESSAGE", message={**who, "data": base64.b64encode(b"hello").decode()})
heard = framework.until(lambda told: told["type"] == "MESSAGE")["message"]
assert base64.b64decode(heard["data"]) == b"olleh" and heard["executor_id"] == {"value": "e1"}, heard
# What was acknowledged is told by reconciliation: the state, and how the executor said that the task is.
framework.call("RECONCILE", reconcile={"tasks": [{"task_id": {"value": "t1"}}]})
status = framework.until(is_update("t1", "TASK_RUNNING"))["update"]["status"]
assert (status["reason"], status["healthy"]) == ("REASON_RECONCILIATION", True), status
assert "data" not in status and "uuid" not in status and status["container_status"]["container_id"], status
framework.call("KILL", kill={"task_id": {"value": "t1"}})
framework.until(is_update("t1", "TASK_KILLED"))
framework.call("SHUTDOWN", shutdown=who)


def has_failed(told):
    if not is_update("t2", "TASK_FAILED")(told):
        return False
    assert told["update"]["status"]["reason"] == "REASON_EXECUTOR_TERMINATED", told
    return True


def has_ended(told):
    if told["type"] != "FAILURE":
        return False
    assert told["failure"]["executor_id"] == {"value": "e1"} and told["failure"]["status"] == 0, told
    return True


# The executor ends with a task that runs: that has failed, and the framework hears of both.
framework.all_of([has_failed, has_ended])
# What it held is offered again.
while sum(amount(offer, "cpus") for offer in framework.offers) < whole:
    framework.event()


def read(path):
    """Of the agent that an offer names, as tools do."""
    url = offer["url"]
    agent = http.client.HTTPConnection(url["address"]["ip"], url["address"]["port"], timeout=60)
    agent.request("GET", path)
    answer = agent.getresponse()
    assert answer.status == 200, (path, answer.status, answer.read())
    return json.loads(answer.read())


# Tasks that were launched together: their executor is told of all at once.
offer = max(framework.offers, key=lambda offer: amount(offer, "cpus"))
framework.offers.remove(offer)
together = {**executor, "executor_id": {"value": "e2"}, "resources": [*RESOURCES, scalar("disk", 1)]}
group = [{"name": task, "task_id": {"value": task}, "agent_id": offer["agent_id"],
          "data": base64.b64encode(b"run").decode(), "resources": RESOURCES} for task in ("g1", "g2")]
framework.accept([offer], {"type": "LAUNCH_GROUP",
                           "launch_group": {"executor": together, "task_group": {"tasks": group}}})
framework.all_of(is_update(task, "TASK_RUNNING") for task in ("g1", "g2"))
shown = read("/slave%281%29/state")["frameworks"][0]["executors"]
assert [(it["id"], [task["id"] for task in it["tasks"]]) for it in shown] == [("e2", ["g1", "g2"])], shown
told = read("/files/read?offset=0&path=%s/groups" % shown[0]["directory"])
assert told["data"] == "g1 g2\n", told
framework.call("KILL", kill={"task_id": {"value": "g1"}})
framework.until(is_update("g1", "TASK_KILLED"))
framework.call("TEARDOWN")
