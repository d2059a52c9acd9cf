"""What a run of schemathesis against the API has to know: which things there are, and which are its own.

OWN_KEYS, OWN_TENANTS: the ids of what must not be touched; KEYS, TENANTS: those of others.
"""

import os
import re
import zlib

import schemathesis

OWN = {name: os.environ[f"OWN_{name}"].split() for name in ("KEYS", "TENANTS")}
OTHERS = {name: os.environ[name].split() for name in ("KEYS", "TENANTS")}
# Parameters that name things, and what a sound one looks like.
NAMES = {
    "key_id": ("KEYS", "[0-9A-Za-z]{12}"),
    "tenant_id": ("TENANTS", "[0-9A-Za-z][0-9A-Za-z._-]{0,63}"),
}


def replace(parameters):
    """Half of the ids become those of things, and none stays that of the caller's own."""
    for parameter, (kind, sound) in NAMES.items():
        text = (parameters or {}).get(parameter)
        if not isinstance(text, str):
            continue
        others = OTHERS[kind]
        number = zlib.crc32(text.encode("utf-8", "surrogatepass"))
        is_sound = re.fullmatch(sound, text)
        if text in OWN[kind] or (is_sound and text not in others and number % 2):
            parameters[parameter] = others[number % len(others)]


@schemathesis.hook
def before_call(context, case, kwargs):
    """Without things that are there, and with a caller that shuts itself out, the run would say nothing."""
    replace(case.path_parameters)
    replace(case.query)
