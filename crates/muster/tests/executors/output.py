# A scheduler of the Mesos v1 API that launches one task, of whose output 4 KB are kept a hundred times, or which has a
# terminal: output.py MASTER COMMAND rotated|terminal
# It ends when the task does.
import sys
from framework import Framework, is_update, scalar

MASTER, COMMAND, KIND = sys.argv[1:4]
framework = Framework(MASTER, "output", ["*"])
offer = framework.until(lambda told: framework.offers) and framework.offers[0]
variables = {"CONTAINER_LOGGER_MAX_STDOUT_SIZE": "4KB", "CONTAINER_LOGGER_LOGROTATE_STDOUT_OPTIONS": "rotate 100"}
command = {"value": COMMAND, "environment": {"variables": [{"name": it, "value": variables[it]} for it in variables]}}
more = {"container": {"type": "MESOS", "tty_info": {}}} if KIND == "terminal" else {}
info = {"name": "task", "task_id": {"value": "writer"}, "agent_id": offer["agent_id"], "command": command,
        "resources": [scalar("cpus", 0.1), scalar("mem", 32)], **more}
framework.accept([offer], {"type": "LAUNCH", "launch": {"task_infos": [info]}})
framework.until(lambda told: any(is_update("writer", state)(told) for state in ("TASK_FINISHED", "TASK_FAILED")))
