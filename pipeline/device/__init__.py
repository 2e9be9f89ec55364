"""Run a built library on a device and measure it.

session           what a device can do
host, remote      this machine; a device behind a TVM RPC tracker
emulator          an emulated ARM phone behind a tracker of its own
profile, cycles   what the emulated phone executes, and how long real cores would take, estimated
measure           speed, accuracy and equality with a reference in one result
"""

from pipeline.device.cycles import CORE_MODELS
from pipeline.device.emulator import EMULATED_CPUS, build_emulator, emulated_device
from pipeline.device.host import HostDevice
from pipeline.device.measure import Measurement, measure
from pipeline.device.remote import RpcDevice
from pipeline.device.session import Device, Program

__all__ = [
    "CORE_MODELS",
    "EMULATED_CPUS",
    "Device",
    "HostDevice",
    "Measurement",
    "Program",
    "RpcDevice",
    "build_emulator",
    "emulated_device",
    "measure",
]
