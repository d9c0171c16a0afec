"""Passwords for NGINX's basic authentication: which are taken, and the file in which NGINX looks them up.

NGINX keeps no memory of who has shown its password: it asks crypt(3) at every single request, in a worker that serves
nobody else meanwhile. Requests a second of one worker, by bcrypt's cost (`wrk`, NGINX 1.31 with musl, of 102,000
without a password): 4: 1,038; 5: 569; 6: 299; 7: 154; 8: 78; 9: 38; 10: 18. So the cost is 5, that of `htpasswd -B`:
whoever gets hold of the hashes tries some 500 passwords a second on a core, which guesses short words, and nothing that
was made at random. Who needs more brings hashes of another cost.
"""

import base64
import hashlib
import re
from collections.abc import Mapping

COST = 5
MIN_LENGTH = 8  # characters
MAX_LENGTH = 72  # bytes; bcrypt takes no notice of what follows, and NGINX hands on what it gets
MAX_NAME = 255  # bytes

# Those that glibc, musl and NGINX itself all know, and that cost no more than some 0.2 s each.
_HASHES = re.compile(
    r"\$2[aby]\$(0[4-9]|1[0-2])\$[./A-Za-z0-9]{53}"
    r"|\$5\$(rounds=[1-9]\d{3,4}\$)?[./A-Za-z0-9]{1,16}\$[./A-Za-z0-9]{43}"
    r"|\$6\$(rounds=[1-9]\d{3,4}\$)?[./A-Za-z0-9]{1,16}\$[./A-Za-z0-9]{86}"
    r"|\$apr1\$[./A-Za-z0-9]{1,8}\$[./A-Za-z0-9]{22}"
)
_LIKE_A_HASH = re.compile(r"\$(1|2[abxy]?|5|6|7|y|gy|apr1|argon2\w*|scrypt|sha1)\$|\{(PLAIN|SHA|SSHA)\}")
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_BCRYPT_BASE64 = b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def is_hash(text: str) -> bool:
    """Whether it is a password's hash, as `htpasswd` or `openssl passwd` make it, and not a password."""
    return _HASHES.fullmatch(text) is not None


def check(name: str, password: str) -> None:
    """Looks at a user's name and its password, or hash.

    Raises:
        ValueError: NGINX could not ask for it. The message does not repeat the password.
    """
    # https://www.rfc-editor.org/rfc/rfc7617#section-2; NGINX takes a line with a # for a comment.
    if not name or not name.isprintable() or ":" in name or name != name.strip() or name.startswith("#"):
        raise ValueError(
            f"{name!r} is no user's name: it has characters, none of them a colon or a control character, no space at "
            "its ends and no # at its beginning"
        )
    if len(name.encode()) > MAX_NAME:
        raise ValueError(f"the user's name {name[:20]!r}… has more than {MAX_NAME} bytes")
    if is_hash(password):
        return
    if _LIKE_A_HASH.match(password):
        raise ValueError(
            f"what is set for {name!r} looks like a hash, but none that NGINX can ask for: bcrypt ($2b$, $2y$) of cost "
            "4 to 12, $5$ and $6$ of less than 100,000 rounds, and $apr1$ are"
        )
    if any(not character.isprintable() for character in password):
        raise ValueError(f"the password of {name!r} has a control character, which no browser can send")
    if len(password) < MIN_LENGTH:
        raise ValueError(f"the password of {name!r} has less than {MIN_LENGTH} characters")
    if len(password.encode()) > MAX_LENGTH:
        raise ValueError(f"the password of {name!r} has more than {MAX_LENGTH} bytes, and bcrypt would ignore the rest")


def htpasswd(users: Mapping[str, str], stack: str) -> str:
    """The file for `auth_basic_user_file`.

    Args:
        users: passwords, or hashes, by name.
        stack: whose they are, such as project and stack.
    """
    lines = (f"{name}:{text if is_hash(text) else hashed(name, text, stack)}" for name, text in sorted(users.items()))
    return "".join(f"{line}\n" for line in lines)


def hashed(name: str, password: str, stack: str) -> str:
    """The hash, each time the same: with a salt of chance, each `pulumi up` would be a change.

    A salt has to be another one for each password, so that nobody can try one guess on many hashes at once, nor see who
    has the same password here and elsewhere. This one is: it comes from stack, name and password. It tells nothing of
    the password that the hash does not tell sooner, because scrypt, which makes it, costs a guess some twenty times as
    much as bcrypt does. (A fast digest in its place would give the password away.)
    """
    import bcrypt  # only where there is something to hash

    origin = "\0".join((stack, name)).encode()
    salt = hashlib.scrypt(password.encode(), salt=origin, n=2**14, r=8, p=1, dklen=16)
    text = base64.b64encode(salt).rstrip(b"=").translate(bytes.maketrans(_BASE64, _BCRYPT_BASE64))
    return bcrypt.hashpw(password.encode(), b"$2b$%02d$%s" % (COST, text)).decode()
