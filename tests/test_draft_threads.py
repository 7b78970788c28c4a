"""One store for many requests: threads lose nothing, and nothing grows without bound."""

import concurrent.futures

import numpy as np

import tokamask as tm


def texts(n, length, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 50, length).tolist() for _ in range(n)]


def serve(drafter, text):
    session = drafter.session(text[:10])
    for start in range(10, len(text), 3):
        tree = session.propose(16)
        session.update(text[start : start + 3], tree=tree)
    return session.token_ids.tolist()


def test_two_threads_lose_nothing():
    requests = texts(32, 310)
    serial, shared = tm.Drafter(), tm.Drafter()
    for text in requests:
        assert serve(serial, text) == text
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda text: serve(shared, text), requests)) == requests
    assert shared.tokens == serial.tokens == 32 * 300
    assert abs(shared.nbytes - serial.nbytes) <= serial.nbytes // 4


def test_the_same_requests_give_the_same_drafts():
    def drafts():
        drafter = tm.Drafter()
        for text in texts(4, 200):
            serve(drafter, text)
        return drafter.session(texts(1, 20)[0]).propose(32)

    first, second = drafts(), drafts()
    assert first == second
    assert np.array_equal(first.probs, second.probs)


def test_one_session_serves_two_threads():
    session = tm.Drafter().session([1])
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(session.update, [i, i + 1]) for i in range(500)]:
            future.result()
        trees = list(pool.map(lambda _: len(session.propose(8)), range(100)))
    assert len(session.token_ids) == 1001
    assert max(trees) <= 8


def test_a_small_store_stays_small_under_a_long_stream():
    drafter = tm.Drafter(capacity_tokens=2_000, recycle=0)
    rng = np.random.default_rng(1)
    for _ in range(100):
        session = drafter.session([0])
        for _ in range(40):
            session.propose(4)
            session.update(rng.integers(0, 100_000, 50).astype(np.uint32))
    assert drafter.tokens == 200_000
    assert drafter.nbytes <= 2_000 * 48


def test_a_dropped_session_leaves_only_what_it_taught():
    drafter = tm.Drafter()
    before = drafter.nbytes
    for _ in range(50):
        session = drafter.session(list(range(1000)))
        session.propose(8)
        del session
    assert drafter.nbytes == before
    assert drafter.tokens == 0
