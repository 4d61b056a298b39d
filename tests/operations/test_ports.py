"""Who holds a port, read from the kernel's own texts."""

from __future__ import annotations

import os
import pwd
import socket

import pytest

from stack.operations import ports

ID = "0123456789ab" + "c" * 52


@pytest.mark.parametrize(
    ("cgroup", "place"),
    [
        ("0::/system.slice/nginx.service\n", "systemd unit nginx.service"),
        ("12:cpu:/\n1:name=systemd:/system.slice/a.service\n0::/system.slice/a.service\n", "systemd unit a.service"),
        ("0::/system.slice/postgresql.service/worker\n", "systemd unit postgresql.service"),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/shop.service\n", "systemd user unit shop.service"),
        ("0::/user.slice/user-1000.slice/user@1000.service/init.scope\n", ""),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-terminal-7.scope\n", ""),
        ("0::/user.slice/user-1000.slice/session-2.scope\n", ""),
        (f"0::/system.slice/docker-{ID}.scope\n", "docker container 0123456789ab"),
        (f"3:memory:/docker/{ID}\n", "docker container 0123456789ab"),
        (f"0::/kubepods.slice/kubepods-pod7.slice/cri-containerd-{ID}.scope\n", "containerd container 0123456789ab"),
        (f"0::/kubepods/besteffort/pod7/{ID}\n", "a container 0123456789ab"),
        (f"0::/machine.slice/libpod-{ID}.scope/container\n", "podman container 0123456789ab"),
        ("0::/\n", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_unit_or_container_is_read_from_the_control_group(cgroup: str, place: str) -> None:
    assert ports.place_of(cgroup) == place


@pytest.mark.parametrize(
    ("where", "owner", "command"),
    [
        ("systemd unit shop.service", "", "systemctl status shop.service"),
        ("systemd unit shop.service", "ana", "systemctl status shop.service"),
        ("systemd user unit shop.service", "", "systemctl --user status shop.service"),
        ("systemd user unit shop.service", "ana", "systemctl --user --machine=ana@ status shop.service"),
        ("podman container 0123456789ab", "", "podman ps --filter id=0123456789ab"),
    ],
)
def test_how_to_see_more_is_a_command_to_type(where: str, owner: str, command: str) -> None:
    assert ports._look("python", where, 80, owner) == f"`{command}` shows what it is."


def test_owner_of_a_socket_is_read_from_the_tables_of_the_kernel() -> None:
    line = "   0: 0100007F:1F40 00000000:0000 {} 00000000:00000000 00:00000000 00000000 {} 0 1 1 0 100 0 0 10 0\n"
    head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    assert ports.socket_owner(8000, [head + line.format("0A", 0)]) == "root"
    assert ports.socket_owner(8000, [head, head + line.format("0A", 4294967294)]) == "uid 4294967294"
    assert ports.socket_owner(8000, [head + line.format("01", 0)]) == ""
    assert ports.socket_owner(8001, [head + line.format("0A", 0)]) == ""


def test_holder_is_the_one_of_this_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:
        port = ours.getsockname()[1]
        assert ports.holder(f"127.0.0.1:{port}")[0].startswith(f"pid {os.getpid()} has it (")
        assert ports.holder(f"0.0.0.0:{port}")[0].startswith(f"pid {os.getpid()} has it (")
        assert ports.holder(f"127.0.0.2:{port}")[0] == "another process has it"
        assert pwd.getpwuid(os.getuid()).pw_name not in ports.holder(f"127.0.0.1:{port}")[1]
