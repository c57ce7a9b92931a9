"""Weights that change while samples are drawn (`rollout.update_in_flight`), with a stand-in for vLLM: who waits, what is said, and what ends it."""

import threading
import time

import httpx
import pytest
from stand_in import dies_while_it_loads, fault, state, tiny_weights

from azr_nemo.rollout.engine import Sample, SampleRequest
from azr_nemo.rollout.stops import cut

pytestmark = pytest.mark.slow
LONG = SampleRequest((5,), 1, 60, 1.0, 99, stop=("no text of these tokens",))  # a stream: two tokens each twentieth of a second


@pytest.fixture(scope="module")
def at_work(start):
    return start(rollout={"update_in_flight": True})


@pytest.fixture
def flying(at_work):
    """An engine whose weights may change between tokens, with a server that is well."""
    try:
        fault(at_work, part=0.05)
    except httpx.TransportError:
        at_work._server.close()
        at_work._start()
        fault(at_work, part=0.05)
    at_work._restarts = 0
    at_work.notes.clear()
    at_work.refit(tiny_weights(), 1)
    return at_work


def asked(engine):
    """The calls that change something, in their order: path, query, body."""
    return [call for call in state(engine)["calls"] if isinstance(call, list) and call[0] not in ("/metrics", "/fake", "/state")]


def drawn_while(engine, act, requests):
    """What generate gives in a thread of its own, `act` done while it draws."""
    found = []
    thread = threading.Thread(target=lambda: found.append(engine.generate(requests)), daemon=True)
    before = sum(isinstance(call, dict) for call in state(engine)["calls"])
    thread.start()
    while sum(isinstance(call, dict) for call in state(engine)["calls"]) == before:
        time.sleep(0.005)
    act()
    thread.join(60)
    assert found, "generate ended without an answer"
    return found[0]


def test_a_sample_says_which_weights_drew_which_of_its_tokens(flying):
    ((before,),) = flying.generate([LONG])
    ((sample,),) = drawn_while(flying, lambda: flying.refit(tiny_weights(0.5), 2), [LONG])
    assert (before.weight_version, before.newer) == (1, ())
    assert sample.token_ids == before.token_ids, "nothing is drawn twice or lost"
    assert sample.weight_version == 1
    ((first, version),) = sample.newer
    assert version == 2
    assert 0 < first < len(sample.token_ids)
    ((after,),) = flying.generate([LONG])
    assert (after.weight_version, after.newer) == (2, ())


def test_what_is_drawn_stands_still_while_they_change_and_keys_of_the_old_ones_are_made_anew(flying):
    drawn_while(flying, lambda: flying.refit(tiny_weights(0.5), 2), [LONG])
    *_, pause, label, load, name, reset, resume = asked(flying)
    assert pause[:2] == ["/pause", {"mode": "keep"}]
    assert [label[2], load[0], name[2]] == [{"new_version": "being replaced"}, "/collective_rpc", {"new_version": "2"}]
    assert reset[:2] == ["/reset_prefix_cache", {"reset_running_requests": "true"}]
    assert resume[0] == "/resume"


def test_tokens_after_a_stop_take_their_versions_along():
    request = SampleRequest((5,), 1, 9, 1.0, 1, stop_token_ids=(7,))
    sample = Sample((3, 4, 7, 8, 9), (-1.0,) * 5, False, 1, ((2, 2), (3, 3)))
    assert cut(sample, request, None) == Sample((3, 4, 7), (-1.0,) * 3, True, 1, ((2, 2),))


def test_a_load_that_fails_lets_the_server_go_on(flying, monkeypatch):
    write = flying._transfer._write

    def miscounted(number, piece):
        write(number, piece)
        flying._transfer._count += 1

    monkeypatch.setattr(flying._transfer, "_write", miscounted)
    with pytest.raises(RuntimeError, match=r"the vLLM server's workers loaded .* tensors, not"):
        flying.refit(tiny_weights(), 2)
    assert [call[0] for call in asked(flying)[-2:]] == ["/collective_rpc", "/resume"]


def test_a_server_that_dies_while_it_takes_them_is_started_and_what_it_owed_is_drawn_by_the_new_ones(flying, monkeypatch):
    dies_while_it_loads(flying, monkeypatch)
    ((sample,),) = drawn_while(flying, lambda: flying.refit(tiny_weights(0.5), 2), [LONG])
    assert (sample.weight_version, sample.newer) == (2, ())
    assert sum("starting another, once" in note for note in flying.notes) == 1


def test_without_the_setting_two_versions_in_a_sample_are_an_error(engine):
    engine.refit(tiny_weights(), 1)
    fault(engine, part=0.05)
    threading.Timer(0.5, lambda: engine._client.call("/update_weight_version", {"new_version": "2"})).start()
    with pytest.raises(RuntimeError, match="the weights changed while a sample was drawn: it has tokens of the versions 1, 2"):
        engine.generate([LONG])


def test_a_server_of_somebody_elses_that_stands_still_is_woken_when_a_run_connects(flying):
    flying._client.call("/pause", mode="keep")
    flying._config.endpoints = [flying._server.url]
    try:
        flying._connect(flying._server.url, flying._server.headers, flying._server.gone)
        ((sample,),) = flying.generate([LONG])
    finally:
        flying._config.endpoints = []
    assert sample.token_ids
