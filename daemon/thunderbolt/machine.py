"""What the tools said, put together: one Machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from daemon.thunderbolt.facts import MOST_PORTS, Machine, Port, UnreadableError, device_of
from daemon.thunderbolt.interfaces import Interface, parse_hardware_ports, parse_ifconfig
from daemon.thunderbolt.profiler import parse
from daemon.thunderbolt.run import Output
from daemon.thunderbolt.system import parse_flag, parse_sw_vers, parse_sysctl
from daemon.thunderbolt.verbs import Device, parse_devices, parse_devinfo

MAC_TOOLS: dict[str, list[str]] = {
    "sw_vers": ["sw_vers"],
    "sysctl": ["sysctl", "hw.model", "kern.bootsessionuuid"],
    "rdma_ctl": ["rdma_ctl", "status"],
    "ibv_devices": ["ibv_devices"],
    "ibv_devinfo": ["ibv_devinfo", "-v"],
    "system_profiler": ["system_profiler", "SPThunderboltDataType", "-json"],
    "networksetup": ["networksetup", "-listallhardwareports"],
    "ifconfig": ["ifconfig", "-a"],
}
OTHER_TOOLS = {name: MAC_TOOLS[name] for name in ("ibv_devices", "ibv_devinfo")}
NONE_FOUND = "No IB devices found"
T = TypeVar("T")


class Reading:
    """Outputs, read; what cannot be read is told beside what hangs or is missing."""

    def __init__(self, outputs: Mapping[str, Output]) -> None:
        self._outputs = outputs
        self.tools = {name: output.summary for name, output in outputs.items()}

    def of(self, tool: str, parser: Callable[[str], T | None]) -> T | None:
        """None when it has not said anything that can be read."""
        output = self._outputs.get(tool)
        if output is None:
            return None
        text = output.text
        if output.how == "failed" and NONE_FOUND in output.detail + text:
            text, self.tools[tool] = NONE_FOUND, "ok"  # its way to say so is to fail
        elif not output.ok:
            return None
        try:
            found = parser(text)
        except UnreadableError as error:
            self.tools[tool] = f"unreadable: {error}"
            return None
        if found is None or not text.strip():
            said = "not its usual output" if text.strip() else "it printed nothing"
            self.tools[tool] = f"unreadable: {said}"
            return None
        return found

    def devices(self) -> dict[str, Device]:
        """All that either tool names."""
        names = self.of("ibv_devices", parse_devices) or []
        told = self.of("ibv_devinfo", parse_devinfo) or {}
        return {name: told.get(name, Device(name)) for name in [*names, *told]}


def mac(outputs: Mapping[str, Output]) -> Machine:
    """A Mac, from the outputs of MAC_TOOLS."""
    reading = Reading(outputs)
    version, build = reading.of("sw_vers", parse_sw_vers) or ("", "")
    model, boot = reading.of("sysctl", parse_sysctl) or ("", "")
    flag = reading.of("rdma_ctl", parse_flag) or ""
    known = reading.devices()
    name, ports = reading.of("system_profiler", parse) or ("", [])
    by_receptacle = reading.of("networksetup", parse_hardware_ports) or {}
    interfaces = reading.of("ifconfig", parse_ifconfig) or {}
    joined = [_joined(port, by_receptacle, interfaces, known) for port in ports]
    taken = {port.device for port in joined}
    loose = [
        _with_device(Port(interface=name.removeprefix("rdma_")), known, interfaces)
        for name in sorted(known)
        if name not in taken and name.startswith("rdma_")
    ]
    ports = (joined + loose)[:MOST_PORTS]
    return Machine("Darwin", version, build, model, name, boot, flag, reading.tools, ports)


def other(system: str, version: str, boot: str, outputs: Mapping[str, Output]) -> Machine:
    """Any other system: the RDMA devices that there are, for people to see."""
    reading = Reading(outputs)
    known = reading.devices()
    ports = [
        Port(device=one.name, state=one.state, gids=list(one.gids[:MOST_PORTS]))
        for one in known.values()
    ]
    return Machine(system, version, boot=boot, tools=reading.tools, ports=ports[:MOST_PORTS])


def _joined(
    port: Port,
    by_receptacle: Mapping[str, str],
    interfaces: Mapping[str, Interface],
    devices: Mapping[str, Device],
) -> Port:
    named = replace(port, interface=by_receptacle.get(port.receptacle, ""))
    return _with_device(named, devices, interfaces)


def _with_device(
    port: Port, devices: Mapping[str, Device], interfaces: Mapping[str, Interface]
) -> Port:
    device = devices.get(device_of(port.interface)) if port.interface else None
    interface = interfaces.get(port.interface, Interface())
    bridges = [name for name, one in interfaces.items() if port.interface in one.members]
    return replace(
        port,
        device=device.name if device else "",
        state=device.state if device else "",
        gids=list(device.gids[:MOST_PORTS]) if device else [],
        addresses=interface.addresses[:MOST_PORTS],
        bridge=bridges[0] if port.interface and bridges else "",
    )
