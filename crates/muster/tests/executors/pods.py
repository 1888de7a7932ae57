# A scheduler of the Mesos v1 API that launches task groups in the default executor, with checks:
# pods.py MASTER FRAMEWORK-ID launch|end
# It ends with 0 when all went as it should. Between its halves masters and agents may die.
import http.client, json, os, sys
from framework import Framework, is_update, scalar

MASTER, ID, PART = sys.argv[1:4]
RESOURCES = [scalar("cpus", 0.1), scalar("mem", 32)]
framework = Framework(MASTER, "pods", ["*"], ["TASK_KILLING_STATE"], ID)


def status_of(task, wanted):
    def is_it(told):
        return told["type"] == "UPDATE" and told["update"]["status"]["task_id"]["value"] == task and \
            wanted(told["update"]["status"])
    return is_it


def launch(executor, *tasks):
    while not framework.offers:
        framework.event()
    offers, framework.offers[:] = framework.offers[:], []
    infos = [{"name": name, "task_id": {"value": name}, "agent_id": offers[0]["agent_id"], "resources": RESOURCES,
              "command": {"value": command}, **more} for name, command, more in tasks]
    info = {"type": "DEFAULT", "executor_id": {"value": executor}, "framework_id": framework.id,
            "resources": [*RESOURCES, scalar("disk", 1)]}
    framework.accept(offers, {"type": "LAUNCH_GROUP",
                              "launch_group": {"executor": info, "task_group": {"tasks": infos}}})
    return offers[0]


def reconcile(*tasks):
    framework.call("RECONCILE", reconcile={"tasks": [{"task_id": {"value": task}} for task in tasks]})


health = {"type": "COMMAND", "command": {"value": "test -e well"}, "delay_seconds": 0, "interval_seconds": 0.1,
          "consecutive_failures": 2}
check = {"type": "COMMAND", "command": {"command": {"value": "exit 3"}}, "delay_seconds": 0, "interval_seconds": 0.1}
is_healthy = status_of("web", lambda status: status.get("healthy") is True)
is_checked = status_of("side", lambda status: status.get("check_status", {}).get("command", {}).get("exit_code") == 3)

if PART == "launch":
    # A task that cannot be run ends its group.
    launch("none", ("fits", "exec sleep 1000", {}),
           ("cannot", "x", {"command": {"shell": False, "value": "/no/such/program"}}))
    framework.all_of([is_update("fits", "TASK_KILLED"), is_update("cannot", "TASK_FAILED")])
    launch("pod", ("web", "touch well; exec sleep 1000", {"health_check": health}),
           ("side", "exec sleep 1000", {"check": check}))
    framework.all_of([is_healthy, is_checked])
    # What was acknowledged is told again as it was.
    reconcile("web", "side")
    framework.all_of([is_healthy, is_checked])
    sys.exit()

# What runs and how it is, is known to whoever leads now.
reconcile()
framework.all_of([is_healthy, is_checked])
offer = launch("other", ("once", "exit 0", {}), ("fails", "exit 7", {}), ("falls", "exec sleep 1000", {}))
framework.all_of([is_update("fails", "TASK_FAILED"), is_update("falls", "TASK_KILLED")])


def task(path):
    address = offer["url"]["address"]
    agent = http.client.HTTPConnection(address["ip"], address["port"], timeout=60)
    agent.request("GET", path)
    answer = agent.getresponse()
    assert answer.status == 200, (path, answer.status, answer.read())
    return json.loads(answer.read())


# A task that is not well is killed, and with it its group.
shown = [it for it in task("/slave%281%29/state")["frameworks"][0]["executors"] if it["id"] == "pod"]
assert len(shown) == 1 and {it["id"] for it in shown[0]["tasks"]} == {"web", "side"}, shown
os.remove(shown[0]["directory"] + "/tasks/web/well")
framework.all_of([status_of("web", lambda it: it["state"] == "TASK_KILLED" and it["healthy"] is False),
                  is_update("side", "TASK_KILLED")])
framework.call("TEARDOWN")
