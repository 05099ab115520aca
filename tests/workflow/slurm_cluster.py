"""A real SLURM with two nodes on this machine, from programs that are installed; everything of it lives in one folder.

Nothing of the machine's own configuration is read or changed: own munge key and socket, own slurm.conf (given by
SLURM_CONF to whatever is started inside, and by an `srun` of its own), own ports, own process-id files, which `stop` goes by.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "sinfo")
NODES = ("n1", "n2")

CONF = """ClusterName=phonon
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
MinJobAge=3600
SlurmdTimeout=8
BatchStartTimeout=5
KillWait=5
SlurmdParameters=config_overrides
SlurmctldPort={port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
{accounting}
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{port1}-{port2}] CPUs=1 RealMemory=6000 State=UNKNOWN
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
"""

DATABASE_PROGRAMS = ("slurmdbd", "mariadbd", "mariadb-install-db", "mariadb", "sacct", "sacctmgr")

DATABASE_CONF = """AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={storage_port}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm_acct_db
"""


def why_not(*, accounting: bool = False) -> str | None:
    """Return why SLURM (with an accounting database) cannot be started here, None if it can."""
    missing = [name for name in PROGRAMS if _program(name) is None]
    if missing:
        return f"SLURM is not installed here ({', '.join(missing)} missing): apt-get install slurm-wlm munge"
    missing = [name for name in DATABASE_PROGRAMS if _program(name) is None]
    if accounting and missing:
        return f"no accounting database here ({', '.join(missing)} missing): apt-get install slurmdbd mariadb-server"
    if os.geteuid() != 0:
        return "SLURM's daemons want to be started by root"
    return None


class Cluster:
    """Two nodes of one processor each.

    Parameters
    ----------
    folder
        Gets everything; must be short, because the path of a socket may have 107 bytes.
    accounting
        With a database of jobs (MariaDB and slurmdbd), in which root belongs to the account "science".
    """

    def __init__(self, folder: Path, *, accounting: bool = False) -> None:
        self.folder = folder
        self.accounting = accounting
        self._database: subprocess.Popen[bytes] | None = None
        path = f"{folder / 'bin'}:{os.environ.get('PATH', '')}"
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}
        for name in list(self.environment):
            if name.startswith(("SLURM_", "SBATCH_")) and name != "SLURM_CONF":
                del self.environment[name]

    def start(self) -> None:
        """Start munge, the controller and both nodes; return when both nodes are idle."""
        folder = self.folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "state").mkdir()
        for node in NODES:
            (folder / f"spool.{node}").mkdir()
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        folder.chmod(0o755)
        # Snakemake takes SLURM_CONF out of the environment of the steps of its jobs, which must find the same SLURM.
        (folder / "bin").mkdir()
        srun = folder / "bin" / "srun"
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {_program("srun")} "$@"\n', encoding="utf-8")
        srun.chmod(0o755)
        port, port1, port2, port3, port4 = _free_ports()
        host = socket.gethostname().split(".")[0]
        accounting = "AccountingStorageType=accounting_storage/none"
        if self.accounting:
            accounting = f"AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=127.0.0.1\nAccountingStoragePort={port3}"
            accounting += f"\nAccountingStoragePass={folder}/munge.socket"
        (folder / "slurm.conf").write_text(
            CONF.format(host=host, folder=folder, port=port, port1=port1, port2=port2, accounting=accounting),
            encoding="utf-8",
        )
        names = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log",
                 "seed-file": "munged.seed"}  # fmt: skip
        self._run("munged", "--force", *(f"--{option}={folder / name}" for option, name in names.items()))
        if self.accounting:
            self._start_database(host, port3, port4)
        self._run("slurmctld", "-f", str(folder / "slurm.conf"))
        for node in NODES:
            self.start_node(node)
        self.wait(lambda: self.states() == dict.fromkeys(NODES, "idle"), 60, "both nodes idle")
        if self.accounting:
            self._run("sacctmgr", "-i", "add", "account", "science", "Description=tests", "Organization=tests")
            self._run("sacctmgr", "-i", "add", "user", "root", "Account=science")
            self._run("sacctmgr", "-i", "modify", "user", "root", "set", "DefaultAccount=science")

    def _start_database(self, host: str, port: int, storage_port: int) -> None:
        """Start MariaDB on a folder and a port of its own, and slurmdbd on that."""
        folder, password = self.folder, secrets.token_hex(16)
        data, connection = str(folder / "database"), str(folder / "database.socket")
        self._run("mariadb-install-db", "--no-defaults", f"--datadir={data}", "--user=root", "--skip-test-db")
        with (folder / "mariadbd.log").open("w") as log:
            self._database = subprocess.Popen(
                [
                    str(_program("mariadbd")), "--no-defaults", f"--datadir={data}", f"--socket={connection}", "--user=root",
                    f"--port={storage_port}", "--bind-address=127.0.0.1", f"--pid-file={folder / 'mariadbd.pid'}",
                    "--innodb-buffer-pool-size=64M",
                ],
                stdout=log, stderr=log,
            )  # fmt: skip
        self.wait(lambda: (folder / "database.socket").exists(), 60, "MariaDB answers")
        grant = f"CREATE USER slurm IDENTIFIED BY '{password}'; GRANT ALL ON slurm_acct_db.* TO slurm;"
        self._run("mariadb", "--no-defaults", f"--socket={connection}", "-e", grant)
        text = DATABASE_CONF.format(folder=folder, host=host, port=port, storage_port=storage_port, password=password)
        (folder / "slurmdbd.conf").write_text(text, encoding="utf-8")
        (folder / "slurmdbd.conf").chmod(0o600)
        self._run("slurmdbd")
        self.wait(lambda: bool(self.ask("sacctmgr", "-n", "list", "account")), 60, "slurmdbd answers")

    def start_node(self, node: str) -> None:
        """Start the daemon of a node."""
        self._run("slurmd", "-f", str(self.folder / "slurm.conf"), "-N", node)

    def stop(self) -> None:
        """End everything that was started, jobs included, by the process ids noted here."""
        if (self.folder / "slurmctld.pid").exists():
            subprocess.run([str(_program("scancel")), "--user=root"], env=self.environment, check=False, timeout=30)
        for node in NODES:
            for process in self.job_processes(node):
                _kill(process, signal.SIGKILL)
        for name in (
            *(f"slurmd.{node}.pid" for node in NODES),
            "slurmctld.pid",
            "slurmdbd.pid",
            "mariadbd.pid",
            "munged.pid",
        ):
            process = self._process(name)
            if process is not None:
                _kill(process, signal.SIGTERM)
                deadline = time.monotonic() + 10
                while _runs(process) and time.monotonic() < deadline:
                    time.sleep(0.1)
                _kill(process, signal.SIGKILL)
        if self._database is not None:
            self._database.wait(30)

    def kill_node(self, node: str, *, jobs_too: bool = True) -> None:
        """Let a node die as by a power cut: SIGKILL for its slurmd, its slurmstepd and, if asked for, its job's processes."""
        processes = self.job_processes(node)
        daemon = self._process(f"slurmd.{node}.pid")
        if daemon is not None:
            _kill(daemon, signal.SIGKILL)
        for process in processes:
            if jobs_too or _command(process).startswith("slurmstepd"):
                _kill(process, signal.SIGKILL)

    def job_processes(self, node: str) -> list[int]:
        """Return the processes of the jobs of a node: its slurmstepd and everything below."""
        roots = [
            process
            for process in _processes()
            if _environment(process).get("SLURMD_NODENAME") == node
            # A job has the search path that it was submitted with; another cluster of this machine has another one.
            and str(self.folder / "bin") in _environment(process).get("PATH", "").split(":")
        ]
        parents = {_parent(process) for process in roots}
        return [*(p for p in parents if _command(p).startswith("slurmstepd")), *roots]

    def states(self) -> dict[str, str]:
        """Return node → state."""
        lines = self.ask("sinfo", "-h", "-N", "-o", "%N %t").splitlines()
        return {line.split()[0]: line.split()[1] for line in lines}

    def jobs(self) -> list[tuple[str, str, str]]:
        """Return (job, state, node) of all jobs."""
        lines = self.ask("squeue", "-h", "--states=all", "-o", "%i|%T|%N").splitlines()
        return [(job, state, node) for job, state, node in (line.split("|") for line in lines)]

    def ask(self, program: str, *words: str) -> str:
        """Return what a command of SLURM prints."""
        done = subprocess.run(
            [str(_program(program)), *words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.stdout

    def wait(self, met: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + seconds
        while not met():
            if time.monotonic() > deadline:
                logs = "".join(path.read_text(errors="replace")[-2000:] for path in self.folder.glob("*.log"))
                raise TimeoutError(f"{what}: not after {seconds:g} s; {self.states()} {self.jobs()}\n{logs}")
            time.sleep(0.3)

    def _run(self, program: str, *words: str) -> None:
        done = subprocess.run(
            [str(_program(program)), *words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program}: {done.stderr or done.stdout}")

    def _process(self, name: str) -> int | None:
        try:
            return int((self.folder / name).read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return None


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _free_ports() -> tuple[int, ...]:
    """Return five free ports beside each other."""
    for port in range(17001, 18000, 5):
        try:
            for number in range(port, port + 5):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", number))
        except OSError:
            continue
        return tuple(range(port, port + 5))
    raise RuntimeError("no five free ports between 17001 and 18000")


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _environment(process: int) -> dict[str, str]:
    try:
        entries = Path(f"/proc/{process}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return {}
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def _command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _parent(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _kill(process: int, number: signal.Signals) -> None:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return
