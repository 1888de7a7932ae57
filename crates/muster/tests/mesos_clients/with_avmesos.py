"""The framework of the tests with avmesos' client.

avmesos takes a list of masters, follows redirects, and comes back 10 s after its stream broke. It sees an event when the
next one comes, so the masters' heartbeats should be short. Whether a call was accepted it does not tell.
"""

import getpass
import sys
import threading

from avmesos.client import MesosClient
from framework import Framework


class NotConnected(Exception):
    """There was no SUBSCRIBED yet."""


class Client:
    def __init__(self, masters, refuse_seconds, executor):
        urls = ["http://" + master for master in masters]
        # It acknowledges an update before it hands it over, and does not if that fails.
        self.framework = Framework(self, refuse_seconds, executor, ends_may_be_lost=True)
        self.mesos = MesosClient(
            urls, frameworkName="avmesos", frameworkUser=getpass.getuser(), max_reconnect=1000
        )
        self.mesos.set_failover_timeout(3600)
        self.driver = None
        self.mesos.on(MesosClient.SUBSCRIBED, self.subscribed)
        self.mesos.on(MesosClient.OFFERS, self.offers)
        self.mesos.on(MesosClient.UPDATE, lambda update: self.framework.updated(update["status"]))
        self.mesos.on(MesosClient.HEARTBEAT, lambda _: self.framework.heartbeat())
        self.mesos.on(MesosClient.ERROR, self.framework.failed)
        self.mesos.on(MesosClient.DISCONNECTED, self.disconnected)
        self.thread = threading.Thread(target=self.mesos.register, daemon=True)

    def start(self):
        self.thread.start()

    # What avmesos tells.

    def subscribed(self, driver):
        self.driver = driver
        self.framework.subscribed(self.mesos.frameworkId)

    def disconnected(self, _):
        self.driver = None
        self.framework.disconnected()

    def offers(self, offers):
        for offer in offers:
            self.framework.offered(offer, offer.get_offer())

    # What the framework asks.

    def launch(self, offer, tasks, filters):
        offer.accept(tasks, {"filters": filters})

    def decline(self, offer, filters):
        offer.decline({"filters": filters})

    def when_connected(self):
        if self.driver is None:
            raise NotConnected()
        return self.driver

    def revive(self):
        self.when_connected().revive()

    def suppress(self):
        self.when_connected().suppress()

    def kill(self, task_id, agent_id):
        self.when_connected().kill(agent_id, task_id)

    def reconcile(self, task_ids):
        self.when_connected().reconcile([{"task_id": {"value": task_id}} for task_id in task_ids])

    def teardown(self):
        self.when_connected().tearDown()
        self.mesos.tearDown()
        self.thread.join()


if __name__ == "__main__":
    client = Client(sys.argv[1].split(","), float(sys.argv[2]), sys.argv[3])
    client.start()
    client.framework.obey()
