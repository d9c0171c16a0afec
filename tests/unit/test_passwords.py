"""Which passwords are taken, and the file in which NGINX looks them up."""

import time
from collections.abc import Callable

import bcrypt
import pytest

from infra import nginx_config, passwords
from infra.site import Site

PASSWORD = "correct horse battery"
BCRYPT = "$2y$05$VjnFmPMHgSdVC.KfMnhfI.JQ4zH1jZ/OTatYS35C6KMCup/tCeVJe"
SHA512 = "$6$3nvlNbebbOF3bA.g$iVn5Ugbl7zd5fDLD29zPUvZt9vkN7R/170KK7/Q9vgrMEEjdxLUt2T9UwK6RTYTWQLlh0IJKkm/mP/dZgYQTc1"
SHA256 = "$5$WctXQwEvuy63IVVv$R8GdsWybLY28CoStiCciCLWgj7Wi4bxgXpOInsumTm0"
APR1 = "$apr1$3b8A52CO$rmauaTo5X5lSoCxV7YJ6x."
HASHES = [BCRYPT, BCRYPT.replace("2y", "2b"), BCRYPT.replace("2y", "2a"), SHA512, SHA256, APR1]


def file(**users: str) -> dict[str, str]:
    """The lines of the file by name."""
    return dict(line.split(":", 1) for line in passwords.htpasswd(users, "project/stack").splitlines())


@pytest.mark.parametrize("password", [PASSWORD, "12345678", "pässwörd € 😀", "a:b c$d\\e'f\"", "x" * 72])
def test_the_file_has_a_hash_that_the_password_and_no_other_fits(password: str) -> None:
    passwords.check("eve", password)
    found = file(eve=password)["eve"].encode()
    assert found.startswith(b"$2b$05$")
    assert bcrypt.checkpw(password.encode(), found)
    assert not bcrypt.checkpw(password.encode()[:-1], found)


@pytest.mark.parametrize("text", HASHES)
def test_a_hash_is_taken_as_it_is(text: str) -> None:
    passwords.check("eve", text)
    assert passwords.is_hash(text)
    assert file(eve=text) == {"eve": text}


def test_the_hash_is_the_same_each_time() -> None:
    assert file(eve=PASSWORD, bob=PASSWORD) == file(bob=PASSWORD, eve=PASSWORD)


def test_the_same_password_has_another_salt_for_another_name_or_stack_and_so_has_another_one() -> None:
    hashes = [
        passwords.hashed("eve", PASSWORD, "project/stack"),
        passwords.hashed("bob", PASSWORD, "project/stack"),
        passwords.hashed("eve", PASSWORD, "project/other"),
        passwords.hashed("eve", PASSWORD + "!", "project/stack"),
        passwords.hashed("stack\0eve", PASSWORD, "project/"),
    ]
    salts = [text[:29] for text in hashes]
    assert len(set(salts)) == len(salts)


def test_a_guess_at_the_salt_costs_far_more_than_one_at_the_hash() -> None:
    def cheapest(action: Callable[[], object]) -> float:
        times = []
        for _ in range(5):
            begin = time.process_time()
            action()
            times.append(time.process_time() - begin)
        return min(times)

    found = passwords.hashed("eve", PASSWORD, "project/stack").encode()
    both = cheapest(lambda: passwords.hashed("eve", PASSWORD, "project/stack"))
    hash_alone = cheapest(lambda: bcrypt.hashpw(PASSWORD.encode(), found[:29]))
    assert both > 5 * hash_alone


def test_the_file_is_there_for_whom_there_are_users_and_has_no_password() -> None:
    assert nginx_config.secret_files(Site()) == {}
    site = Site.model_validate({"basicAuth": {"users": {"eve": PASSWORD, "bob": APR1}}})
    (text,) = nginx_config.secret_files(site, "project/stack").values()
    assert text == passwords.htpasswd({"eve": PASSWORD, "bob": APR1}, "project/stack")
    assert PASSWORD not in text
    assert PASSWORD not in repr(site)


@pytest.mark.parametrize("name", ["eve", "eve@shop.example", "Eve Müller", "a" * 255, "a#b", "a/b", "$x", "-"])
def test_names_may_have_what_a_browser_can_send(name: str) -> None:
    passwords.check(name, PASSWORD)


@pytest.mark.parametrize("name", ["", " eve", "eve ", "a:b", "a\nb", "a\0b", "\x7f", "#eve", "a" * 256, "ä" * 128])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        passwords.check(name, PASSWORD)


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("", "less than 8 characters"),
        ("1234567", "less than 8 characters"),
        ("x" * 73, "more than 72 bytes"),
        ("ä" * 37, "more than 72 bytes"),
        ("new\nline in it", "control character"),
        ("nul\0 in it!", "control character"),
        (BCRYPT.replace("$05$", "$13$"), "looks like a hash"),
        (BCRYPT.replace("$05$", "$31$"), "looks like a hash"),
        (BCRYPT.replace("2y", "2x"), "looks like a hash"),
        (BCRYPT[:-1], "looks like a hash"),
        (BCRYPT + "x", "looks like a hash"),
        (SHA512.replace("$6$", "$6$rounds=500000$"), "looks like a hash"),
        ("$1$3b8A52CO$rmauaTo5X5lSoCxV7YJ6x.", "looks like a hash"),
        ("$y$j9T$abcdefgh$4mqd6JVlUo/.JMgenptcdPqIowfqDPoC9lSyWQhPMf1", "looks like a hash"),
        ("$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA", "looks like a hash"),
        ("{PLAIN}correct horse", "looks like a hash"),
        ("{SSHA}c2FsdHNhbHQ=", "looks like a hash"),
    ],
)
def test_a_password_that_nginx_could_not_ask_for_is_refused_without_being_repeated(password: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as refused:
        passwords.check("eve", password)
    assert "'eve'" in str(refused.value)
    assert not password or password not in str(refused.value)
