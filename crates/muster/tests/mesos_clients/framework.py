"""A framework of the tests, whatever client library it speaks with.

It is told what to do by lines on standard input, and says what happens by lines of JSON on standard output:

    launch N COMMAND    N more tasks, each with a name of its own that replaces {} in the command
    execute N COMMAND   likewise, in an executor of the framework's own, one on each agent
    message TEXT        hand a text to each executor that runs something; what it says is told as `message`
    kill NAME           kill a task
    reconcile NAME...   ask what becomes of tasks
    suppress, revive    no offers; offers again
    quit                tear the framework down and end

A task that was never known to the masters, by their own word, is asked for again under another id: `NAME.2`. What became
of an ACCEPT whose answer was lost is asked first, so nothing is started twice unless the masters do it. A client that
acknowledges an update before it hands it over may never hand it over: what ran and is not known any more has ended then.
"""

import base64

import json
import sys
import threading

CPUS, MEMORY = 0.5, 32
# What an executor takes for itself.
EXECUTOR_CPUS, EXECUTOR_MEMORY = 0.1, 32
EXECUTOR_ID = "of-the-tests"
TERMINAL = {"TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR", "TASK_LOST", "TASK_DROPPED", "TASK_GONE"}
NEVER_KNOWN = {"REASON_INVALID_OFFERS", "REASON_RECONCILIATION"}


class Task:
    def __init__(self, name, command, executor=None):
        self.name, self.command, self.attempt = name, command, 1
        # The command line of the executor that it runs in; none for one with a process of its own.
        self.executor = executor
        self.ran = False
        self.state, self.agent_id = "WAITING", None
        # Whether the answer to its ACCEPT was lost.
        self.unsure = False

    @property
    def id(self):
        return "%s.%d" % (self.name, self.attempt)

    def waits(self):
        return self.state == "WAITING"

    def info(self, agent_id):
        info = {
            "name": self.name,
            "task_id": {"value": self.id},
            "agent_id": {"value": agent_id},
            "resources": scalars(cpus=CPUS, mem=MEMORY),
        }
        command = self.command.replace("{}", self.id)
        if self.executor is None:
            info["command"] = {"value": command}
        else:
            info["data"] = base64.b64encode(command.encode()).decode()
            info["executor"] = {
                "type": "CUSTOM",
                "executor_id": {"value": EXECUTOR_ID},
                "command": {"value": self.executor},
                "resources": scalars(cpus=EXECUTOR_CPUS, mem=EXECUTOR_MEMORY),
            }
        return info


def scalars(**amounts):
    return [{"name": name, "type": "SCALAR", "scalar": {"value": value}} for name, value in amounts.items()]


class Framework:
    """Decides. `client` carries out: launch, decline, revive, suppress, kill, reconcile, teardown."""

    def __init__(self, client, refuse_seconds, executor=None, ends_may_be_lost=False):
        self.client = client
        self.executor = executor
        # Whether the client acknowledges before it hands over.
        self.ends_may_be_lost = ends_may_be_lost
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
            waiting = [task for task in self.tasks.values() if task.waits()]
            cpus, memory = has.get("cpus", 0), has.get("mem", 0)
            if any(task.executor for task in waiting):
                # There may be no executor there yet.
                cpus, memory = cpus - EXECUTOR_CPUS, memory - EXECUTOR_MEMORY
            room = max(0, int(min(cpus / CPUS, memory / MEMORY) + 1e-6))
            chosen = waiting[:room]
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
        # First: who is told of it may build on it at once.
        again, ended = self.record(status)
        task_id, state = status["task_id"]["value"], status["state"]
        self.say(
            "update",
            task=task_id,
            state=state,
            reason=status.get("reason"),
            message=status.get("message"),
            acknowledged="uuid" in status,
        )
        if again:
            self.call("revive")
        elif ended:
            self.say("ended", task=task_id.rpartition(".")[0], state=ended)

    def record(self, status):
        """Whether the task is to be launched again, and how it ended, if it did."""
        task_id, state, reason = status["task_id"]["value"], status["state"], status.get("reason")
        name, attempt = task_id.rpartition(".")[::2]
        with self.lock:
            task = self.tasks.get(name)
            if task is None or str(task.attempt) != attempt or task.state in TERMINAL or task.waits():
                return False, None
            task.unsure = False
            unknown = state == "TASK_LOST" and reason in NEVER_KNOWN
            if unknown and task.ran and self.ends_may_be_lost:
                task.state = "TASK_FINISHED"
            elif unknown:
                task.attempt, task.state = task.attempt + 1, "WAITING"
                return True, None
            else:
                task.state = state
                task.ran = task.ran or state == "TASK_RUNNING"
            return False, task.state if task.state in TERMINAL else None

    def messaged(self, executor_id, agent_id, data):
        text = base64.b64decode(data).decode()
        self.say("message", executor=executor_id["value"], agent_id=agent_id["value"], text=text)

    def failed(self, message):
        self.say("error", message=message)

    # What the test tells.

    def obey(self):
        for line in sys.stdin:
            word, _, rest = line.strip().partition(" ")
            if word in ("launch", "execute"):
                count, _, command = rest.partition(" ")
                executor = self.executor if word == "execute" else None
                with self.lock:
                    first = len(self.tasks)
                    for n in range(first, first + int(count)):
                        name = "task-%d" % n
                        self.tasks[name] = Task(name, command, executor)
                self.until_done("revive")
            elif word == "kill":
                with self.lock:
                    task = self.tasks[rest]
                self.until_done("kill", task.id, task.agent_id)
            elif word == "message":
                with self.lock:
                    running = [task for task in self.tasks.values() if task.executor and task.state == "TASK_RUNNING"]
                for agent_id in sorted({task.agent_id for task in running}):
                    self.until_done("message", EXECUTOR_ID, agent_id, base64.b64encode(rest.encode()).decode())
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
