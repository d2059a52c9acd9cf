"""What a run of schemathesis against the key API has to know: which keys there are, and which is its own.

OWN_KEYS: the ids of keys that must not be touched, KEYS: those of others.
"""

import os
import re
import zlib

import schemathesis

OWN_KEYS = os.environ["OWN_KEYS"].split()
KEYS = os.environ["KEYS"].split()


@schemathesis.hook
def before_call(context, case, kwargs):
    """Half of the ids are those of keys, and never the caller's own: without it the run would say nothing."""
    key_id = (case.path_parameters or {}).get("key_id")
    if not isinstance(key_id, str):
        return
    number = zlib.crc32(key_id.encode("utf-8", "surrogatepass"))
    is_id = re.fullmatch("[0-9A-Za-z]{12}", key_id)
    if key_id in OWN_KEYS or (is_id and key_id not in KEYS and number % 2):
        case.path_parameters["key_id"] = KEYS[number % len(KEYS)]
