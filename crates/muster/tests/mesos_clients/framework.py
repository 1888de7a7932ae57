"""A framework of the tests, whatever client library it speaks with.

It is told what to do by lines on standard input, and says what happens by lines of JSON on standard output:

    launch N COMMAND    N more tasks, each with a name of its own that replaces {} in the command
    kill NAME           kill a task
    reconcile NAME...   ask what becomes of tasks
    suppress, revive    no offers; offers again
    quit                tear the framework down and end

A task that was never known to the masters, by their own word, is asked for again under another id: `NAME.2`. What became
of an ACCEPT whose answer was lost is asked first, so nothing is started twice unless the masters do it.
"""

import json
import sys
import threading

CPUS, MEMORY = 0.5, 32
TERMINAL = {"TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR", "TASK_LOST", "TASK_DROPPED", "TASK_GONE"}
NEVER_KNOWN = {"REASON_INVALID_OFFERS", "REASON_RECONCILIATION"}


class Task:
    def __init__(self, name, command):
        self.name, self.command, self.attempt = name, command, 1
        self.state, self.agent_id = "WAITING", None
        # Whether the answer to its ACCEPT was lost.
        self.unsure = False

    @property
    def id(self):
        return "%s.%d" % (self.name, self.attempt)

    def waits(self):
        return self.state == "WAITING"

    def info(self, agent_id):
        return {
            "name": self.name,
            "task_id": {"value": self.id},
            "agent_id": {"value": agent_id},
            "resources": [
                {"name": "cpus", "type": "SCALAR", "scalar": {"value": CPUS}},
                {"name": "mem", "type": "SCALAR", "scalar": {"value": MEMORY}},
            ],
            "command": {"value": self.command.replace("{}", self.id)},
        }


class Framework:
    """Decides. `client` carries out: launch, decline, revive, suppress, kill, reconcile, teardown."""

    def __init__(self, client, refuse_seconds):
        self.client = client
        self.lock = threading.RLock()
        self.output = threading.Lock()
        self.tasks = {}
        # For how long what it has no use for is declined.
        self.refuse_seconds = refuse_seconds
        self.subscriptions = 0

    def say(self, event, **more):
        with self.output:
            print(json.dumps(dict(more, event=event)), flush=True)

    def call(self, name, *arguments):
        """Makes a call; false if it failed, which a framework must live with."""
        try:
            getattr(self.client, name)(*arguments)
            return True
        except Exception as error:
            self.say("call-failed", call=name, why=repr(error))
            return False

    # What the client library tells.

    def subscribed(self, framework_id):
        with self.lock:
            self.subscriptions += 1
            asked = [task for task in self.tasks.values() if not task.waits() and task.state not in TERMINAL]
            for task in asked:
                task.unsure = task.unsure or task.state == "ASKED"
        self.say("subscribed", framework_id=framework_id, times=self.subscriptions)
        self.reconcile(asked)

    def disconnected(self):
        self.say("disconnected")

    def heartbeat(self):
        self.say("heartbeat")
        with self.lock:
            unsure = [task for task in self.tasks.values() if task.unsure]
        self.reconcile(unsure)

    def reconcile(self, tasks):
        if tasks:
            self.call("reconcile", [task.id for task in tasks])

    def offered(self, handle, offer):
        """An offer, and what the client library needs to answer it."""
        host, agent_id = offer["hostname"], offer["agent_id"]["value"]
        has = {it["name"]: it["scalar"]["value"] for it in offer["resources"] if it["type"] == "SCALAR"}
        with self.lock:
            room = int(min(has.get("cpus", 0) / CPUS, has.get("mem", 0) / MEMORY) + 1e-6)
            chosen = [task for task in self.tasks.values() if task.waits()][:room]
            for task in chosen:
                task.state, task.agent_id = "ASKED", agent_id
            infos = [task.info(agent_id) for task in chosen]
            refuse_seconds = 1.0 if any(task.waits() for task in self.tasks.values()) else self.refuse_seconds
        self.say("offer", host=host, agent_id=agent_id, launched=[task.id for task in chosen])
        if not chosen:
            self.call("decline", handle, {"refuse_seconds": refuse_seconds})
        elif not self.call("launch", handle, infos, {"refuse_seconds": 0.0}):
            with self.lock:
                for task in chosen:
                    task.unsure = task.state == "ASKED"

    def updated(self, status):
        task_id, state, reason = status["task_id"]["value"], status["state"], status.get("reason")
        self.say(
            "update",
            task=task_id,
            state=state,
            reason=reason,
            message=status.get("message"),
            acknowledged="uuid" in status,
        )
        name, attempt = task_id.rpartition(".")[::2]
        again = False
        with self.lock:
            task = self.tasks.get(name)
            if task is None or str(task.attempt) != attempt or task.state in TERMINAL or task.waits():
                return
            task.unsure = False
            if state == "TASK_LOST" and reason in NEVER_KNOWN:
                task.attempt, task.state, again = task.attempt + 1, "WAITING", True
            else:
                task.state = state
        if again:
            self.call("revive")
        elif state in TERMINAL:
            self.say("ended", task=name, state=state)

    def failed(self, message):
        self.say("error", message=message)

    # What the test tells.

    def obey(self):
        for line in sys.stdin:
            word, _, rest = line.strip().partition(" ")
            if word == "launch":
                count, _, command = rest.partition(" ")
                with self.lock:
                    first = len(self.tasks)
                    for n in range(first, first + int(count)):
                        name = "task-%d" % n
                        self.tasks[name] = Task(name, command)
                self.until_done("revive")
            elif word == "kill":
                with self.lock:
                    task = self.tasks[rest]
                self.until_done("kill", task.id, task.agent_id)
            elif word == "reconcile":
                ids = [self.tasks[name].id if name in self.tasks else name for name in rest.split()]
                self.until_done("reconcile", ids)
            elif word in ("suppress", "revive"):
                self.until_done(word)
            elif word == "quit":
                self.client.teardown()
                self.say("quit")
                return
            else:
                raise ValueError(line)
            self.say("done", what=line.strip())

    def until_done(self, name, *arguments):
        """What the test asks for is asked again while nobody can be asked."""
        pause = threading.Event()
        while not self.call(name, *arguments):
            pause.wait(0.2)
