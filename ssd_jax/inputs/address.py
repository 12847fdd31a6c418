"""Download images from http(s) addresses."""

import time
from urllib.parse import urlsplit

import ssd_jax
from ssd_jax.errors import UserError, format_error_reason

MAX_BYTES = 100_000_000
"""Largest size of an image that is downloaded."""
MAX_SECONDS = 60.0
"""Longest time that a download may take."""
_TIMEOUTS_S = (10.0, 20.0)
"""Time to wait for a connection, and for the next bytes, in seconds."""
_CHUNK_BYTES = 1 << 16


def download_image(address: str) -> bytes:
    """Return the content of the file at an address.

    Raises:
        UserError: If there is no connection, the server refuses the file or takes too long, or the file is too large or
            empty; the message names the address.
    """
    import requests  # takes 0.1 s, and most commands download nothing
    from requests.adapters import HTTPAdapter, Retry

    host = urlsplit(address).netloc.rpartition("@")[2]
    start = time.monotonic()
    # Some servers refuse programs without a name.
    headers = {"Accept-Encoding": "identity", "User-Agent": f"ssd-jax/{ssd_jax.__version__}"}
    content = bytearray()
    try:
        with requests.Session() as session:
            # Once again, because a server may close the connection that a redirect uses.
            retry = HTTPAdapter(max_retries=Retry(1, connect=0, read=1, redirect=False, status=0))
            session.mount("http://", retry)
            session.mount("https://", retry)
            response = session.get(address, headers=headers, stream=True, timeout=_TIMEOUTS_S)
            if not response.ok:
                raise _make_error(address, f"HTTP status {response.status_code}", "Check the address.")
            for chunk in response.iter_content(_CHUNK_BYTES):
                content += chunk
                if len(content) > MAX_BYTES:
                    raise _make_error(address, f"more than {MAX_BYTES / 1e6:g} MB", "Download it in another way.")
                if time.monotonic() - start > MAX_SECONDS:
                    raise _make_error(address, f"it takes more than {MAX_SECONDS:g} s", "Try it again later.")
    except requests.exceptions.Timeout:
        raise _make_error(address, f"{host} does not answer", "Try it again later.") from None
    except requests.exceptions.ChunkedEncodingError:
        raise _make_error(address, "the connection was lost", "Try it again.") from None
    except requests.exceptions.ConnectionError as error:
        if "Read timed out" in str(error):  # the server stopped in the middle of the file
            raise _make_error(address, f"{host} does not answer", "Try it again later.") from None
        raise _make_error(address, f"no connection to {host}", "Check the address.") from None
    except requests.exceptions.InvalidSchema:
        reason = "it redirects to an address that does not begin with http:// or https://"
        raise _make_error(address, reason, "Check the address.") from None
    except requests.exceptions.RequestException as error:
        raise _make_error(address, format_error_reason(error), "Check the address.") from error
    if not content:
        raise _make_error(address, "the file is empty", "Check the address.")
    return bytes(content)


def _make_error(address: str, reason: str, advice: str) -> UserError:
    return UserError(f"{address}: can't be downloaded ({reason}). {advice}")
