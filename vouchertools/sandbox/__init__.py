"""The local Mews: a real HTTP server on loopback that speaks the voucher-code contract.

It is a second, independent reading of the contract: it imports nothing else of the package, so that
a mistake of the client cannot agree with itself here.
"""

from vouchertools.sandbox.faults import Faults
from vouchertools.sandbox.server import Server
from vouchertools.sandbox.switches import Switches

__all__ = ["Faults", "Server", "Switches"]
