"""Once per key: one record, one receipt, one `accepted`, whatever the number of copies and instances."""
import threading
import uuid

import pytest

import signing

COPIES, ROUNDS = 10, 100


def test_sequential(servers, client, zoom):
    event = zoom()
    first = client.post(event)
    assert first.status == 200 and first.json["status"] == "accepted"
    for number in range(1, servers.state.instances + 1):
        made = servers.client(servers.direct_url(number))
        again = made.post(event)
        made.close()
        assert again.status == 200 and again.json == {**first.json, "status": "duplicate"}
    assert len(servers.receipts(first.json["webhook_event_id"])) == 1
    assert servers.event_ids()[first.json["webhook_event_id"]] == 1


def test_a_retry_is_signed_anew_and_still_the_same_event(servers, client, zoom):
    event = zoom()
    first = client.post(event)
    again = client.post(signing.zoom_signed(event.body, servers.secret("zoom"), int(__import__("time").time()) - 120))
    assert again.json == {**first.json, "status": "duplicate"}


def test_an_unsigned_delivery_id_does_not_make_a_new_event(servers, client, zoom):
    event = zoom()
    first = client.post(event)
    again = client.post(event.with_header("x-zm-request-id", str(uuid.uuid4())))
    assert again.json == {**first.json, "status": "duplicate"}


@pytest.mark.parametrize("platform", ["fireflies", "otter"])
def test_other_platforms(client, request, platform):
    event = request.getfixturevalue(platform)()
    assert [client.post(event).json["status"] for _ in range(3)] == ["accepted", "duplicate", "duplicate"]


def test_another_event_type_of_the_same_meeting_is_another_event(servers, client):
    name = signing.meeting_uuid()
    told = [client.post(signing.zoom_signed(signing.zoom_body(servers.zoom_account, event, uuid=name),
                                            servers.secret("zoom"))).json for event in ("meeting.started", "meeting.ended")]
    assert [t["status"] for t in told] == ["accepted", "accepted"]
    assert told[0]["webhook_event_id"] != told[1]["webhook_event_id"]


def test_the_same_meeting_of_another_workspace_is_another_event(servers, client):
    name = signing.meeting_uuid()
    told = [client.post(signing.zoom_signed(signing.zoom_body(account, uuid=name), servers.secret("zoom"))).json
            for account in (servers.zoom_account, servers.limited_account)]
    assert [t["status"] for t in told] == ["accepted", "accepted"]


def test_ten_copies_at_once_a_hundred_times(servers, zoom):
    """Through nginx to three instances."""
    start, end = threading.Barrier(COPIES + 1), threading.Barrier(COPIES + 1)
    current, answers, broken = [None], [[None] * COPIES for _ in range(ROUNDS)], []

    def sender(number):
        made = servers.client()
        for round_ in range(ROUNDS):
            start.wait()
            try:
                answers[round_][number] = made.post(current[0])
            except Exception as error:
                broken.append(f"round {round_}: {error!r}")
                made.close()
            end.wait()
        made.close()

    threads = [threading.Thread(target=sender, args=(n,), daemon=True) for n in range(COPIES)]
    for thread in threads:
        thread.start()
    for _ in range(ROUNDS):
        current[0] = zoom(event="meeting.started")
        start.wait()
        end.wait()
    for thread in threads:
        thread.join()

    assert not broken, broken[:5]
    ids = []
    for round_, copies in enumerate(answers):
        assert [a.status for a in copies] == [200] * COPIES, (round_, [(a.status, a.raw) for a in copies])
        words = sorted(a.json["status"] for a in copies)
        assert words == ["accepted"] + ["duplicate"] * (COPIES - 1), (round_, words)
        assert len({a.json["webhook_event_id"] for a in copies}) == 1
        ids.append(copies[0].json["webhook_event_id"])
    assert len(set(ids)) == ROUNDS
    counts = servers.event_ids()
    assert [counts.get(event_id) for event_id in ids] == [1] * ROUNDS
    rows = servers.query("SELECT event_id::text, count(*) FROM mcp.webhook_events WHERE event_id = ANY (%s::uuid[]) "
                         "GROUP BY 1", ids)
    assert sorted(rows) == sorted([event_id, 1] for event_id in ids)
