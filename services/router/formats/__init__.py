"""Wire formats: what a call looks like when it comes in, and how a provider answers it.

An `Endpoint` is a format that clients speak, one module each. An `Exchange` says how a provider of some format answers
an endpoint: byte for byte where both speak the same (`native`), translated otherwise. `registry` lists both. Nothing
here waits for anything: bytes in, bytes out.
"""
