"""A framework of the Mesos v1 API in JSON, for scripts. It prints each event, a line each."""
import http.client, json, signal

signal.alarm(90)  # heartbeats come for as long as one waits
HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}


class Framework:
    """Subscribed at a master that leads, anew or as `name` again, whose id it then draws itself."""

    def __init__(self, master, name, roles, capabilities=(), framework_id=None):
        info = {"user": "", "name": name, "roles": roles, "failover_timeout": 600,
                "capabilities": [{"type": kind} for kind in ("MULTI_ROLE", "PARTITION_AWARE", *capabilities)]}
        known = {"framework_id": {"value": framework_id}} if framework_id else {}
        info.update({"id": {"value": framework_id}} if framework_id else {})
        self.master, self.offers = master, []  # that stand
        # Kept, or the stream would end with it.
        self.connection = http.client.HTTPConnection(master, timeout=60)
        subscribe = {"type": "SUBSCRIBE", "subscribe": {"framework_info": info}, **known}
        self.connection.request("POST", "/api/v1/scheduler", json.dumps(subscribe), HEADERS)
        self.stream = self.connection.getresponse()
        assert self.stream.status == 200, (self.stream.status, self.stream.read())
        self.stream_id = self.stream.getheader("Mesos-Stream-Id")
        self.id = self.event()["subscribed"]["framework_id"]

    def event(self):
        """The next event that is no heartbeat. Updates are acknowledged, offers kept."""
        while True:
            told = json.loads(self.stream.read(int(self.stream.readline())))
            if told["type"] == "HEARTBEAT":
                continue
            print(json.dumps(told), flush=True)
            if told["type"] == "UPDATE":
                status = told["update"]["status"]
                assert status["state"] != "TASK_ERROR", status
                if "uuid" in status:
                    self.call("ACKNOWLEDGE", acknowledge={key: status[key] for key in ("agent_id", "task_id", "uuid")})
            elif told["type"] == "UPDATE_OPERATION_STATUS":
                status = told["update_operation_status"]["status"]
                assert status["state"] == "OPERATION_FINISHED", status
                self.call("ACKNOWLEDGE_OPERATION_STATUS", acknowledge_operation_status={
                    "agent_id": status["agent_id"], "operation_id": status["operation_id"],
                    "uuid": status["uuid"]["value"]})
            elif told["type"] == "OFFERS":
                self.offers.extend(told["offers"]["offers"])
            elif told["type"] == "RESCIND":
                self.offers[:] = [offer for offer in self.offers if offer["id"] != told["rescind"]["offer_id"]]
            return told

    def call(self, kind, **parts):
        answers = http.client.HTTPConnection(self.master, timeout=60)
        body = json.dumps({"type": kind, "framework_id": self.id, **parts})
        answers.request("POST", "/api/v1/scheduler", body, {**HEADERS, "Mesos-Stream-Id": self.stream_id})
        answer = answers.getresponse()
        assert answer.status == 202, (kind, answer.status, answer.read())

    def accept(self, offers, *operations):
        self.call("ACCEPT", accept={"offer_ids": [offer["id"] for offer in offers], "filters": {"refuse_seconds": 0},
                                    "operations": list(operations)})

    def until(self, wanted):
        """The first event that is wanted."""
        while True:
            told = self.event()
            if wanted(told):
                return told

    def all_of(self, wanted):
        """Until each of these has come, in whatever order."""
        left = list(wanted)
        while left:
            told = self.event()
            left = [is_it for is_it in left if not is_it(told)]


def is_update(task, state):
    return lambda told: told["type"] == "UPDATE" and \
        told["update"]["status"]["task_id"]["value"] == task and told["update"]["status"]["state"] == state


def scalar(name, value, **more):
    return {"name": name, "type": "SCALAR", "scalar": {"value": value}, **more}


def amount(offer, name):
    return sum(it["scalar"]["value"] for it in offer["resources"] if it["name"] == name)
