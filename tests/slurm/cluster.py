"""A real Slurm on one machine: munged, slurmctld and two slurmd on loopback, all of it under one folder, with null devices
as fake GPUs. Needs the programs of Slurm (Debian: slurm-wlm, munge) and root, since slurmd changes to the job's user."""
import contextlib
import os
import pathlib
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import time

PROGRAMS = ["munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "scontrol", "squeue", "sinfo"]
NODES = ["n1", "n2"]
GPUS = 2
CPUS = 4


def missing():
    """What is not there of what a cluster needs, or nothing."""
    lacking = [program for program in PROGRAMS if shutil.which(program, path=path()) is None]
    return ", ".join(lacking) or ("root" if os.geteuid() != 0 else "")


def path():
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Cluster:
    """Two nodes of two GPUs. Times out rather than waits for ever; `down` ends exactly what `up` has started."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.config = self.folder / "slurm.conf"
        self.environment = {**os.environ, "SLURM_CONF": str(self.config), "PATH": path()}

    def up(self):
        for name in ("munge", "state", "log", "run", "dev", *(f"spool/{n}" for n in NODES)):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        key = self.folder / "munge/key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        for gpu in range(GPUS):
            # A character device with the numbers of /dev/null.
            os.mknod(self.folder / f"dev/nvidia{gpu}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        self.configure()
        run = self.folder / "run"
        self.start("munged", "--force", f"--key-file={key}", f"--socket={self.folder}/munge/socket", f"--pid-file={run}/munged.pid",
                   f"--log-file={self.folder}/log/munged", f"--seed-file={self.folder}/munge/seed")
        self.start("slurmctld", "-c", "-f", self.config)
        for node in NODES:
            self.start_node(node)
        self.wait(lambda: self.output("sinfo", "-h", "-N", "-t", "idle", "-o", "%N").split() == NODES, 60, "nodes are idle")

    def configure(self):
        control, *nodes = free_ports(1 + len(NODES))
        host = socket.gethostname().split(".")[0]
        (self.folder / "gres.conf").write_text(
            f"AutoDetect=off\nNodeName=n[1-{len(NODES)}] Name=gpu Type=fake File={self.folder}/dev/nvidia[0-{GPUS - 1}]\n"
        )
        settings = {
            "ClusterName": "local", "SlurmctldHost": f"{host}(127.0.0.1)", "SlurmctldPort": control,
            "SlurmUser": "root", "SlurmdUser": "root", "AuthType": "auth/munge", "CryptoType": "crypto/munge",
            "AuthInfo": f"socket={self.folder}/munge/socket", "StateSaveLocation": self.folder / "state",
            "SlurmdSpoolDir": self.folder / "spool/%n", "SlurmctldPidFile": self.folder / "run/slurmctld.pid",
            "SlurmdPidFile": self.folder / "run/slurmd.%n.pid", "SlurmctldLogFile": self.folder / "log/slurmctld",
            "SlurmdLogFile": self.folder / "log/slurmd.%n", "ProctrackType": "proctrack/linuxproc", "TaskPlugin": "task/none",
            "JobAcctGatherType": "jobacct_gather/none", "AccountingStorageType": "accounting_storage/none",
            "MpiDefault": "none", "SwitchType": "switch/none", "SchedulerType": "sched/backfill",
            "SelectType": "select/cons_tres", "SelectTypeParameters": "CR_Core", "SlurmdParameters": "config_overrides",
            "GresTypes": "gpu", "ReturnToService": 2, "SlurmctldTimeout": 30, "SlurmdTimeout": 30, "KillWait": 10,
            "MinJobAge": 300, "SchedulerParameters": "sched_interval=2,sched_min_interval=0,batch_sched_delay=0,bf_interval=2", "RequeueExit": 75, "BatchStartTimeout": 10,
        }
        lines = [f"{key}={value}" for key, value in settings.items() if value != ""]
        for node, port in zip(NODES, nodes):
            lines.append(
                f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} Boards=1 SocketsPerBoard=1 "
                f"CoresPerSocket={CPUS} ThreadsPerCore=1 RealMemory=1024 Gres=gpu:fake:{GPUS} State=UNKNOWN"
            )
        lines.append(f"PartitionName=gpu Nodes=n[1-{len(NODES)}] Default=YES MaxTime=UNLIMITED State=UP")
        self.config.write_text("\n".join(lines) + "\n")

    def start(self, *command):
        subprocess.run([str(part) for part in command], check=True, timeout=30, env=self.environment)

    def start_node(self, node):
        self.start("slurmd", "-N", node, "-f", self.config)

    def stop_node(self, node):
        """The daemon of a node goes away, as if the node had failed."""
        self.end(self.folder / f"run/slurmd.{node}.pid", signal.SIGKILL)

    def down(self):
        with contextlib.suppress(Exception):
            self.output("scancel", "--user=root", "--signal=KILL")
            self.output("scancel", "--user=root")
            self.wait(lambda: not self.output("squeue", "-h"), 20, "all jobs are gone")
        for file in [*self.folder.glob("run/slurmd.*.pid"), self.folder / "run/slurmctld.pid", self.folder / "run/munged.pid"]:
            self.end(file, signal.SIGTERM)

    def end(self, file, how):
        if not file.exists():
            return
        pid = int(file.read_text())
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, how)
            self.wait(lambda: not pathlib.Path(f"/proc/{pid}/stat").exists() or self.is_zombie(pid), 20, f"{file.name} has ended")
        file.unlink(missing_ok=True)

    @staticmethod
    def is_zombie(pid):
        with contextlib.suppress(OSError):
            return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
        return True

    def output(self, *command, cwd=None, env=None):
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, cwd=cwd,
                              env={**self.environment, **(env or {})})
        if done.returncode:
            raise AssertionError(f"{command}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def submit(self, *arguments, cwd, env=None):
        """The id of a new job."""
        return self.output("sbatch", "--parsable", *arguments, cwd=cwd, env=env).split(";")[0]

    def job(self, job):
        """The fields of a job that Slurm shows."""
        return dict(re.findall(r"(\w+)=(\S*)", self.output("scontrol", "show", "job", job)))

    def wait_state(self, job, state, seconds):
        self.wait(lambda: self.job(job)["JobState"] == state, seconds, f"job {job} is {state}", lambda: str(self.job(job)))

    @staticmethod
    def wait(condition, seconds, what, why=lambda: ""):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"not within {seconds} s: {what} {why()}")
            time.sleep(0.1)
