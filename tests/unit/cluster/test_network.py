"""The interface of an address is found, or none."""

from orchestration.cluster.process import interface_of


def test_loopback_has_its_interface() -> None:
    assert interface_of("127.0.0.1") == "lo"


def test_address_of_another_machine_has_none() -> None:
    assert interface_of("192.0.2.77") is None
