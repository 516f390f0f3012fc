"""A program cannot reach outside files, the network, other processes, the caller's environment, or more rights."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from pathlib import Path

import pytest
from sandbox_runs import output, run

from donod_fast.errors import InputError, SandboxError
from donod_fast.evaluation.sandbox import Sandbox
from donod_fast.evaluation.sandbox.layout import find_layout

HERE = Path(__file__).resolve()


def test_files_of_the_caller_cannot_be_read(sandbox: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("outside")
    for folder in (tmp_path, *list(tmp_path.parents)[:-2]):
        folder.chmod(0o755)  # readable by everyone: it is the walls that must hold
    text = """
        import sys
        for path in sys.argv[1:]:
            try:
                print("open", path, open(path).read(20))
            except (FileNotFoundError, PermissionError, NotADirectoryError):
                pass
        print("none of them")
        """
    paths = [secret, HERE, HERE.parents[3] / "pyproject.toml", Path.home() / ".bashrc", "/etc/shadow", "/etc/hostname"]
    paths += ["/proc/1/environ", "/proc/1/mem", "/proc/1/root/etc/hostname", f"/proc/{os.getpid()}/environ"]
    assert output(sandbox, text, *map(str, paths)) == "none of them"


def test_home_repository_and_temporary_folder_are_not_there(sandbox: Sandbox) -> None:
    text = """
        import os, sys
        def inside(folder):
            return sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        print(*map(inside, ("/home", "/tmp", "/srv", "/var", "/mnt", "/sys", "/run")))
        print([path for path in sys.argv[1:] if os.path.exists(path)])
        print(os.path.expanduser("~"))
        """
    said = output(sandbox, text, str(HERE), str(HERE.parents[3] / "donod_fast"), str(HERE.parents[2] / "README.md"))
    assert said.splitlines() == ["[] [] [] [] [] [] []", "[]", "/scratch"]


def test_environment_holds_nothing_of_the_callers(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    token = secrets.token_hex(8)
    monkeypatch.setenv("SECRET_TOKEN", token)
    text = """
        import os, sys
        held = [open(f"/proc/{name}/environ").read() for name in ("self",)]
        for number in range(1, 200):
            try:
                held.append(open(f"/proc/{number}/environ").read())
                held.append(open(f"/proc/{number}/cmdline").read())
            except OSError:
                pass
        print("TOKEN" in "".join(held), sorted(set(os.environ) - {"LC_CTYPE"}))
        """
    known = "['DONOD_CHANNEL', 'HOME', 'LANG', 'PATH', 'PYTHONDONTWRITEBYTECODE', 'PYTHONHASHSEED'"
    assert output(sandbox, text) in (f"False {known}]", f"False {known}, 'PWD']")


def test_system_is_read_only_and_scratch_is_not(sandbox: Sandbox) -> None:
    text = """
        import os, sys
        folders = ["/", "/program", "/usr", "/usr/lib", "/etc", "/dev", "/proc", "/proc/sys/kernel"]
        for folder in (*folders, os.path.dirname(sys.executable), os.path.dirname(os.__file__)):
            try:
                open(folder + "/new", "w").close()
                print("written:", folder)
            except OSError:
                pass
        for folder in ("/", "/usr/lib", "/program", os.path.dirname(os.__file__)):
            if not os.statvfs(folder).f_flag & os.ST_RDONLY:
                print("may be written by its owner:", folder)
        for path in (__file__, os.__file__, "/etc/passwd"):
            writing = lambda: open(path, "a")
            moving = lambda: os.rename(path, "/scratch/x")
            for attempt in (writing, moving, lambda: os.chmod(path, 0o777), lambda: os.unlink(path)):
                try:
                    attempt()
                    print("changed:", path)
                except OSError:
                    pass
        open("note", "w").write("kept")
        print(open("/scratch/note").read(), open("/tmp/note").read(), os.getcwd())
        """
    assert output(sandbox, text) == "kept kept /scratch"


def test_links_in_scratch_lead_nowhere(sandbox: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("outside")
    text = """
        import os, sys
        os.symlink(sys.argv[1], "link")
        os.symlink("/proc/1/root", "root")
        os.symlink("../" * 20 + sys.argv[1].lstrip("/"), "up")
        for path in ("link", "root/etc/hostname", "up"):
            for mode in ("r", "w"):
                try:
                    open(path, mode).close()
                    print("opened", path)
                except OSError:
                    pass
        try:
            os.link("/etc/passwd", "hard")
        except OSError:
            print("done")
        """
    assert output(sandbox, text, str(secret)) == "done"
    assert secret.read_text() == "outside"


def test_a_listener_of_the_caller_is_not_reached(sandbox: Sandbox) -> None:
    name = "\0donod-" + secrets.token_hex(8)
    with socket.socket() as listener, socket.socket(socket.AF_UNIX) as abstract:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        abstract.bind(name)
        abstract.listen()
        text = """
            import os, socket, sys
            refused = 0
            port = int(sys.argv[1])
            addresses = [("127.0.0.1", port), (sys.argv[3], port), ("1.1.1.1", 53)]
            targets = [(socket.AF_INET, address) for address in addresses]
            targets += [(socket.AF_UNIX, "\\0" + sys.argv[2]), (socket.AF_INET6, ("::1", port))]
            for family, address in targets:
                try:
                    with socket.socket(family) as end:
                        end.settimeout(2)
                        end.connect(address)
                        print("reached", address)
                except OSError:
                    refused += 1
            try:
                socket.getaddrinfo("localhost.example.org", 80)
                print("resolved")
            except OSError:
                refused += 1
            print(refused)
            """
        said = output(sandbox, text, str(listener.getsockname()[1]), name[1:], _own_address())
        assert said == "6"
        for each in (listener, abstract):
            each.setblocking(False)
            with pytest.raises(BlockingIOError):
                each.accept()


def _own_address() -> str:
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return "127.0.0.1"


def test_sockets_that_no_network_namespace_confines_are_refused(sandbox: Sandbox) -> None:
    text = """
        import socket
        for name in ("AF_VSOCK", "AF_NETLINK", "AF_PACKET", "AF_ALG"):
            try:
                socket.socket(getattr(socket, name), socket.SOCK_RAW if name == "AF_NETLINK" else socket.SOCK_STREAM)
                print("made", name)
            except OSError:
                pass
        left, right = socket.socketpair()
        left.send(b"works"); print(right.recv(9).decode())
        """
    assert output(sandbox, text) == "works"


def test_a_program_has_no_capabilities_and_cannot_gain_any(sandbox: Sandbox) -> None:
    text = """
        import ctypes, os
        state = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
        print(*(int(state[name], 16) for name in ("CapEff", "CapPrm", "NoNewPrivs", "Seccomp")))
        print(0 in os.getresuid() + os.getresgid())
        libc = ctypes.CDLL(None, use_errno=True)
        attempts = {
            "user namespace": lambda: libc.unshare(0x10000000),
            "mount": lambda: libc.mount(b"none", b"/scratch", b"tmpfs", 0, None),
            "chroot": lambda: libc.chroot(b"/scratch"),
            "clone": lambda: libc.syscall({"x86_64": 56, "aarch64": 220}[os.uname().machine], 0x10000011, 0, 0, 0, 0),
            "clone3": lambda: libc.syscall(435, 0, 0),
            "memfd": lambda: libc.memfd_create(b"x", 0),
            "shared memory": lambda: libc.shmget(0, 1 << 20, 0o1600),
            "trace": lambda: libc.ptrace(16, 1, 0, 0),
            "keyring": lambda: libc.syscall({"x86_64": 250, "aarch64": 219}[os.uname().machine], 0, -3, 0),
            "io_uring": lambda: libc.syscall(425, 8, 0),
            "root": lambda: libc.setuid(0),
            "hostname": lambda: libc.sethostname(b"x", 1),
        }
        print([name for name, attempt in attempts.items() if attempt() >= 0])
        """
    assert output(sandbox, text).splitlines() == ["0 0 1 2", "False", "[]"]


def test_other_processes_are_neither_seen_nor_hit(sandbox: Sandbox) -> None:
    text = """
        import os, signal
        for target in (os.getppid(), 1, -1, 0 - os.getppid()):
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP):
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                try:
                    os.kill(target, number)
                except OSError:
                    pass
        print(len([name for name in os.listdir("/proc") if name.isdigit()]) <= 2, os.getpid() < 10)
        """
    assert output(sandbox, text) == "True True"


def test_own_process_group_may_be_killed_and_nothing_else_is(sandbox: Sandbox) -> None:
    done = run(sandbox, "import os, signal\nos.killpg(0, signal.SIGKILL)")
    assert (done.how, done.code) == ("signalled", -9)


def test_descriptors_of_the_caller_do_not_come_in(sandbox: Sandbox, tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        text = "import os\nprint(sorted(map(int, os.listdir('/proc/self/fd'))), os.read(0, 1))"
        assert output(sandbox, text) == "[0, 1, 2, 3, 4] b''"  # the fifth is the listing's own


def test_programs_run_with_a_fixed_hash_seed_and_the_base_interpreter(sandbox: Sandbox) -> None:
    text = """
        import sys
        print(hash("a"), sys.version_info[:2], sys.flags.no_site, sys.prefix == sys.base_prefix, sys.path[0])
        """
    first = output(sandbox, text)
    assert first == output(sandbox, text)
    assert str(sys.version_info[:2]) in first


def test_packages_that_lie_under_tmp_are_shown_too(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The new root is built on /tmp, which hides what lies there: an environment in a checkout under /tmp, say.
    (tmp_path / "only_here.py").write_text("NAME = 'found'\n", encoding="utf-8")
    tmp_path.chmod(0o755)
    monkeypatch.setattr("donod_fast.evaluation.sandbox.layout.packages_folder", lambda: str(tmp_path))
    find_layout.cache_clear()
    try:
        with_packages = Sandbox(sandbox.isolation, sandbox.limits, packages=True)
        text = "import sys; sys.path.append(sys.argv[1]); import only_here; print(only_here.NAME)"
        assert output(with_packages, text, "{packages}") == "found"
    finally:
        find_layout.cache_clear()


def test_installed_packages_are_there_only_on_request(sandbox: Sandbox) -> None:
    text = """
        import sys
        sys.path.append(sys.argv[1])
        try:
            import typer
            print("there")
        except ImportError:
            print("not there")
        """
    with_packages = Sandbox(sandbox.isolation, sandbox.limits, packages=True)
    assert output(sandbox, text, "{packages}") == "not there"
    assert output(with_packages, text, "{packages}") == "there"


def test_program_files_stand_in_folders_and_names_cannot_leave(sandbox: Sandbox) -> None:
    files = {"main.py": "import sys; sys.path.insert(0, '/program'); from inner import part; print(part.x)"}
    done = sandbox.run({**files, "inner/part.py": b"x = 5"}, ["{python}", "{program}/main.py"])
    assert done.stdout == b"5\n"
    for name in ("../x", "/etc/x", "", "a/../../b"):
        with pytest.raises(InputError, match="program folder"):
            sandbox.run({name: ""}, ["{python}"])


def test_a_command_that_is_not_there_is_an_error_of_the_sandbox(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxError, match="No such file"):
        sandbox.run({}, ["/no/such/program"])
