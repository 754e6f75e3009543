"""What schemathesis is told of the calls beside their document. Loaded by the settings beside it."""

import schemathesis

# So long a call may wait for something, in ms: who asks for a minute gets it.
WAIT_MS_MAX = 20
# Above it a float does not say which whole number it is.
WHOLE_MAX = 2**53


def is_number(value):
    return isinstance(value, int) and not isinstance(value, bool)


def whole(value):
    """The same value: JSON Schema takes 5.0 for a whole number, the server wants it written as 5."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= WHOLE_MAX:
        return int(value)
    if isinstance(value, list):
        return [whole(item) for item in value]
    if isinstance(value, dict):
        return {name: whole(item) for name, item in value.items()}
    return value


@schemathesis.hook
def before_call(context, case, kwargs):
    """Writes numbers as the server wants them, and shortens what is asked to take long."""
    if isinstance(case.body, dict):
        case.body = whole(case.body)
    for place in (case.body, case.query):
        if isinstance(place, dict) and is_number(place.get("wait_ms")) and 0 < place["wait_ms"] <= 60_000:
            place["wait_ms"] = min(place["wait_ms"], WAIT_MS_MAX)
