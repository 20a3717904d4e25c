"""What crosses the wire arrives as it left."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError

from core.schemas import Embedding, ImageRecord


@given(hnp.arrays(np.float32, st.integers(1, 64), elements=st.floats(-1, 1, width=32)))
def test_a_vector_survives_the_wire_bit_for_bit(vector: np.ndarray) -> None:
    arrived = Embedding.model_validate_json(Embedding(collection="c", vector=vector).model_dump_json())
    assert arrived.vector.dtype == np.float32
    assert np.array_equal(arrived.vector, vector)


@pytest.mark.parametrize("text", ["not base64!", "AAA=", "AAAAAAA="])
def test_a_vector_that_is_no_base64_of_floats_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        Embedding.model_validate({"collection": "c", "vector": text})


@pytest.mark.parametrize("image_id", ["", "abc", "A" * 64, "g" * 64, "a" * 65, "../" + "a" * 61])
def test_an_image_id_is_64_lower_case_hexadecimal_digits(image_id: str) -> None:
    with pytest.raises(ValidationError, match="image_id"):
        ImageRecord.model_validate(
            {"image_id": image_id, "state": "pending", "paths": [], "bytes": 1, "noticed_at": "2026-01-01T00:00:00Z"}
        )
