"""Vectors that vendors and RFCs have published, through `hookgate verify`."""
import hmac

import pytest

from judging import MACS, MATCHES, SENTENCES, UNSIGNED_TIME, accepted, authentic, check, http, refused
from judging import folder, verify  # noqa: F401 (fixtures)

SLACK_BODY = (b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
              b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
              b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554"
              b"%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c")


def test_github_docs(verify):
    """docs.github.com, Validating webhook deliveries."""
    signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    secret = "It's a Secret to Everybody"
    for headers in ([], [("Content-Type", "application/json"), ("X-GitHub-Event", "push")]):
        request = http("github", b"Hello, World!", headers + [("X-Hub-Signature-256", signature)])
        verdict = authentic(verify("github", request, secret), 400, "bad_json")
        assert verdict["checks"] == [check("signature", True, MATCHES), check("freshness", True, UNSIGNED_TIME),
                                     check("extract", False, SENTENCES["BAD_JSON"])]
        assert verdict["event_id"] is None and verdict["dedup_key"] is None
    refused(verify("github", request.replace(b"World!", b"World"), secret), "SIGNATURE_MISMATCH")
    refused(verify("github", request, secret.lower()), "SIGNATURE_MISMATCH")


@pytest.mark.parametrize("content_type", [None, "application/x-www-form-urlencoded", "application/json"])
def test_slack_docs(verify, content_type):
    """docs.slack.dev, Verifying requests from Slack; a slash command, so no event."""
    headers = [("X-Slack-Request-Timestamp", 1531420618),
               ("X-Slack-Signature", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503")]
    if content_type:
        headers.append(("Content-Type", content_type))
    request, secret = http("slack", SLACK_BODY, headers), "8f742231b10e8888abcd99yyyzzz85a5"
    authentic(verify("slack", request, secret, at=1531420618), 400, "bad_json")
    refused(verify("slack", request, secret, at=1531420618 + 301), "TIMESTAMP_STALE")
    refused(verify("slack", request, secret), "TIMESTAMP_STALE")
    refused(verify("slack", request.replace(b"text=", b"text=1"), secret, at=1531420618), "SIGNATURE_MISMATCH")


@pytest.mark.parametrize("names", ["webhook", "svix"])
@pytest.mark.parametrize("mark", ["whsec_", ""])
def test_standard_webhooks_libraries(verify, names, mark):
    """The vector of the libraries of Svix and of standard-webhooks. Its body says no type, and need not."""
    headers = [(f"{names}-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"), (f"{names}-timestamp", 1614265330),
               (f"{names}-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")]
    secret, body = mark + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}'
    request = http("standard-webhooks", body, headers)
    accepted(verify("standard-webhooks", request, secret, at=1614265330), "standard-webhooks", "message",
             "msg_p5jXN8AQM9LWM0D4loKWxJek")
    several = request.replace(b"v1,g0hM", b"v1,AAAA v1a,AAAA v2,g0hM v1,g0hM")
    authentic(verify("standard-webhooks", several, secret, at=1614265330))
    refused(verify("standard-webhooks", request, secret, at=1614265330 + 301), "TIMESTAMP_STALE")
    refused(verify("standard-webhooks", request, secret, at=1614265330 - 301), "TIMESTAMP_FUTURE")
    other = request.replace(b"WxJek", b"WxJel")
    refused(verify("standard-webhooks", other, secret, at=1614265330), "SIGNATURE_MISMATCH")


# RFC 4231 (SHA-256 and SHA-512) and RFC 2202 (SHA-1): number, key, data, digests.
RFC = [
    ("1", "0b" * 20, b"Hi There", {
        "sha1": "b617318655057264e28bc0b6fb378c8ef146be00",
        "sha256": "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        "sha512": "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702038b274eaea3f4e4"
                  "be9d914eeb61f1702e696c203a126854"}),
    ("2", b"Jefe".hex(), b"what do ya want for nothing?", {
        "sha1": "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79",
        "sha256": "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        "sha512": "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fd"
                  "caeab1a34d4a6b4b636e070a38bce737"}),
    ("3", "aa" * 20, b"\xdd" * 50, {
        "sha1": "125d7342b9ac11cd91a39af48aa17b4f63f175d3",
        "sha256": "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
        "sha512": "fa73b0089d56a284efb0f0756c890be9b1b5dbdd8ee81a3655f83e33b2279d39bf3e848279a722c806b485a47e67c807"
                  "b946a337bee8942674278859e13292fb"}),
    ("4", bytes(range(1, 26)).hex(), b"\xcd" * 50, {
        "sha1": "4c9007f4026250c6bc8414f9bf50c86c2d7235da",
        "sha256": "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
        "sha512": "b0ba465637458c6990e5a8c5f61d4af7e576d97ff94b872de76f8050361ee3dba91ca5c11aa25eb4d679275cc5788063"
                  "a5f19741120c4f2de2adebeb10a298dd"}),
    ("6", "aa" * 131, b"Test Using Larger Than Block-Size Key - Hash Key First", {
        "sha256": "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        "sha512": "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f3526b56d037e05f2598bd0fd2215d6a1e52"
                  "95e64f73f63f0aec8b915a985d786598"}),
    ("7", "aa" * 131, b"This is a test using a larger than block-size key and a larger than block-size data. The key "
                      b"needs to be hashed before being used by the HMAC algorithm.", {
        "sha256": "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
        "sha512": "e37b6a775dc87dbaa4dfa9f96e5e3ffddebd71f8867289865df5a32d20cdc944b6022cac3c4982b10d5eeb55c3e4de15"
                  "134676fb6de0446065c97440fa8c6a58"}),
]


@pytest.mark.parametrize("number, key, data, digests", RFC, ids=[case[0] for case in RFC])
def test_rfc_4231_and_2202(verify, folder, number, key, data, digests):
    where = folder(MACS)
    for name, digest in digests.items():
        assert hmac.new(bytes.fromhex(key), data, name).hexdigest() == digest # no slip of the pen
        request = http("rfc", data, [(f"x-{name}", digest)])
        authentic(verify("rfc", request, key, *where), 400, "bad_json")
        refused(verify("rfc", http("rfc", data + b" ", [(f"x-{name}", digest)]), key, *where), "SIGNATURE_MISMATCH")
        refused(verify("rfc", request, key[:-2] + "00", *where), "SIGNATURE_MISMATCH")


def test_rfc_4231_truncated(verify, folder):
    """Its test case 5 is cut to 128 bits, which proves too little."""
    request = http("rfc", b"Test With Truncation", [("x-sha256", "a3b6167473100ee06e0c796c2955552b")])
    refused(verify("rfc", request, "0c" * 20, *folder(MACS)), "SIGNATURE_MALFORMED")
