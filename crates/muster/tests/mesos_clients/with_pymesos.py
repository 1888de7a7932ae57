"""The framework of the tests with pymesos' scheduler driver.

pymesos takes one master's address (or ZooKeeper's) and comes back to that one. Who knows of several masters tells it where
the leader is, by `change_master`, as its ZooKeeper detector does; here a thread asks `/redirect`, as Mesos' own tools do.
"""

import getpass
import http.client
import os
import sys
import threading
from urllib.parse import urlparse

from framework import Framework
from pymesos import MesosSchedulerDriver, Scheduler


class NotConnected(Exception):
    """The driver drops what it is asked while it has no stream, without a word."""


class Client(Scheduler):
    def __init__(self, masters, refuse_seconds, executor):
        self.masters = masters
        self.framework = Framework(self, refuse_seconds, executor)
        info = {"user": getpass.getuser(), "name": "pymesos", "failover_timeout": 3600.0}
        # Acknowledgements are made here: one that fails inside of the driver would end its thread.
        self.driver = MesosSchedulerDriver(
            self,
            info,
            masters[0],
            implicit_acknowledgements=False,
            principal=os.environ.get("TEST_PRINCIPAL"),
            secret=os.environ.get("TEST_SECRET"),
        )

    def start(self):
        self.driver.start()
        if len(self.masters) > 1:
            threading.Thread(target=self.detect, daemon=True).start()

    def detect(self):
        pause = threading.Event()
        while True:
            if not self.driver.connected:
                leader = self.leader()
                if leader and leader != self.driver.master:
                    self.driver.change_master(leader)
            pause.wait(0.25)

    def leader(self):
        for master in self.masters:
            connection = http.client.HTTPConnection(master, timeout=2)
            try:
                connection.request("GET", "/redirect")
                answer = connection.getresponse()
                answer.read()
                if answer.status == 307:
                    return urlparse(answer.getheader("Location")).netloc
            except (OSError, http.client.HTTPException):
                pass
            finally:
                connection.close()
        return None

    # What pymesos tells.

    def registered(self, driver, framework_id, master_info):
        self.framework.subscribed(framework_id["value"])

    def reregistered(self, driver, master_info):
        self.framework.subscribed(driver.framework_id)

    def disconnected(self, driver):
        self.framework.disconnected()

    def processHeartBeat(self, driver):
        self.framework.heartbeat()

    def resourceOffers(self, driver, offers):
        for offer in offers:
            self.framework.offered(offer["id"], offer)

    def statusUpdate(self, driver, status):
        self.framework.updated(status)
        self.framework.call("acknowledge", status)

    def frameworkMessage(self, driver, executor_id, agent_id, message):
        self.framework.messaged(executor_id, agent_id, message)

    def error(self, driver, message):
        self.framework.failed(message)

    # What the framework asks.

    def acknowledge(self, status):
        self.driver.acknowledgeStatusUpdate(status)

    def launch(self, offer_id, tasks, filters):
        self.driver.launchTasks(offer_id, tasks, filters)

    def decline(self, offer_id, filters):
        self.driver.declineOffer(offer_id, filters)

    def when_connected(self):
        if not self.driver.connected:
            raise NotConnected()
        return self.driver

    def revive(self):
        self.when_connected().reviveOffers()

    def suppress(self):
        self.when_connected().suppressOffers()

    def kill(self, task_id, agent_id):
        self.when_connected().killTask({"value": task_id})

    def message(self, executor_id, agent_id, data):
        self.when_connected().sendFrameworkMessage({"value": executor_id}, {"value": agent_id}, data)

    def reconcile(self, task_ids):
        self.when_connected().reconcileTasks([{"task_id": {"value": task_id}} for task_id in task_ids])

    def teardown(self):
        self.driver.stop()
        self.driver.join()


if __name__ == "__main__":
    client = Client(sys.argv[1].split(","), float(sys.argv[2]), sys.argv[3])
    client.start()
    client.framework.obey()
