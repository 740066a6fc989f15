"""Cosine and recall at 10 of vectors: as anybody would compute them, and of vectors alone."""

import numpy as np
import pytest

from ae_pipeline.codec.header import Scaling
from ae_pipeline.evaluation.measures.metrics import cosine
from ae_pipeline.evaluation.measures.row_errors import means_of, measure_rows
from ae_pipeline.evaluation.neighbours import MOST_ROWS, Neighbours

RANDOM = np.random.default_rng(0)
VECTORS = RANDOM.normal(size=(300, 8)).astype(np.float32)
NOISY = (VECTORS + RANDOM.normal(0, 0.4, VECTORS.shape)).astype(np.float32)
SCALING = Scaling(offset=-3.0, scale=6.0)


def recall(original, decoded, block=64):
    kept = Neighbours()
    for start in range(0, len(original), block):
        kept.add(original[start : start + block], decoded[start : start + block])
    return kept.recall()


def by_hand(original, decoded):
    """The plain definition, one query after the other, in double precision."""

    def directions(rows):
        return rows.astype(float) / np.linalg.norm(rows.astype(float), axis=1, keepdims=True)

    def nearest(query, rows, number):
        similar = rows @ query
        similar[number] = -np.inf
        return set(np.argsort(similar)[::-1][:10])

    x, y = directions(original), directions(decoded)
    found = [len(nearest(x[n], x, n) & nearest(x[n], y, n)) for n in range(len(x))]
    return np.mean(found) / 10


def test_recall_is_what_the_plain_definition_gives():
    assert recall(VECTORS, NOISY) == pytest.approx(by_hand(VECTORS, NOISY), abs=1e-9)
    assert 0.2 < recall(VECTORS, NOISY) < 0.9


def test_recall_does_not_depend_on_the_blocks():
    assert recall(VECTORS, NOISY, 7) == recall(VECTORS, NOISY, 300)


def test_what_came_back_whole_is_found_whole_also_where_vectors_repeat():
    assert recall(VECTORS, VECTORS) == 1
    repeated = np.repeat(VECTORS[:15], 20, axis=0)
    assert recall(repeated, repeated + np.float32(1e-6)) > 0.99
    assert recall(np.zeros((30, 4), np.float32), np.zeros((30, 4), np.float32)) == 1


def test_nonsense_is_found_by_chance_alone():
    assert recall(VECTORS, RANDOM.normal(size=VECTORS.shape).astype(np.float32)) < 0.1


def test_integers_of_any_sign_have_neighbours():
    values = RANDOM.integers(-100, 100, (50, 6)).astype(np.int8)
    assert recall(values, values) == 1


def test_few_rows_and_pictures_have_no_recall():
    assert recall(VECTORS[:10], NOISY[:10]) is None
    assert recall(VECTORS[:11], VECTORS[:11]) == 1
    pictures = RANDOM.random((40, 4, 4)).astype(np.float32)
    assert recall(pictures, pictures) is None


def test_of_many_rows_the_first_are_searched():
    rows = RANDOM.normal(size=(MOST_ROWS + 500, 3)).astype(np.float32)
    spoilt = rows.copy()
    spoilt[MOST_ROWS:] = 0
    assert recall(rows, spoilt, 2048) == 1
    kept = Neighbours()
    kept.add(rows, rows)
    assert sum(len(block) for block, _ in kept._blocks) == MOST_ROWS


def test_cosine_is_of_values_as_they_are():
    values = measure_rows(VECTORS, NOISY, SCALING)["cosine"]
    wanted = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in zip(VECTORS.astype(float), NOISY, strict=True)]
    np.testing.assert_allclose(values, wanted, atol=1e-6)
    np.testing.assert_allclose(cosine(original=VECTORS, decoded=3 * VECTORS), 1)
    np.testing.assert_allclose(cosine(original=VECTORS, decoded=-VECTORS), -1)


def test_cosine_of_zeros():
    zeros = np.zeros((2, 3), np.float32)
    other = np.array([[0, 0, 0], [1, 2, 3]], np.float32)
    np.testing.assert_array_equal(cosine(original=zeros, decoded=other), [1, 0])


def test_it_is_measured_of_vectors_alone():
    pictures = RANDOM.integers(0, 255, (5, 12, 12), dtype=np.uint8)
    assert "cosine" not in measure_rows(pictures, pictures, Scaling(offset=0.0, scale=255.0))
    assert "cosine" in means_of(measure_rows(VECTORS, NOISY, SCALING))
