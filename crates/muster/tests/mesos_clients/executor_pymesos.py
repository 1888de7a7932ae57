"""An executor of the tests with pymesos' executor driver: each task is a shell command of its own."""

import base64
import subprocess
import threading

from pymesos import Executor, MesosExecutorDriver


class Commands(Executor):
    def __init__(self):
        self.lock = threading.Lock()
        self.running = {}
        self.killed = set()

    def launchTask(self, driver, task):
        task_id = task["task_id"]["value"]
        command = base64.b64decode(task["data"]).decode()
        with self.lock:
            process = self.running[task_id] = subprocess.Popen(["sh", "-c", command])
        self.tell(driver, task_id, "TASK_RUNNING")
        threading.Thread(target=self.wait, args=(driver, task_id, process), daemon=True).start()

    def wait(self, driver, task_id, process):
        code = process.wait()
        with self.lock:
            del self.running[task_id]
            killed = task_id in self.killed
        self.tell(driver, task_id, "TASK_KILLED" if killed else "TASK_FAILED" if code else "TASK_FINISHED")

    def tell(self, driver, task_id, state):
        driver.sendStatusUpdate({"task_id": {"value": task_id}, "state": state})

    def killTask(self, driver, task_id):
        with self.lock:
            process = self.running.get(task_id["value"])
            if process is not None:
                self.killed.add(task_id["value"])
                process.terminate()

    def frameworkMessage(self, driver, message):
        text = base64.b64decode(message).decode()
        with self.lock:
            answer = "%s: %d running" % (text, len(self.running))
        driver.sendFrameworkMessage(base64.b64encode(answer.encode()).decode())

    def shutdown(self, driver):
        with self.lock:
            for process in self.running.values():
                process.terminate()


if __name__ == "__main__":
    MesosExecutorDriver(Commands()).run()
