from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from format_files import Sample
from formats import difference, samples

from torchrelay.datasets.images.decode import decode_image
from torchrelay.datasets.images.formats.raster import BadImage
from torchrelay.datasets.images.headers import look_at_pictures
from torchrelay.recipe import Feature

MANY = 10_000_000
SAMPLES = samples()
READ = [sample for sample in SAMPLES if sample.picture is not None]
REFUSED = [sample for sample in SAMPLES if sample.picture is None]


def name_of(sample: Sample) -> str:
    return sample.name.replace(", ", "-").replace(" ", "_")


@pytest.mark.parametrize("sample", READ, ids=name_of)
def test_a_file_is_read_as_the_picture_that_it_holds(sample: Sample) -> None:
    found = decode_image(sample.data, Feature(kind="image"), MANY)
    assert found.pixels.dtype == np.uint8
    assert difference(found.pixels, sample) <= sample.tolerance


@pytest.mark.parametrize("sample", REFUSED, ids=name_of)
def test_a_file_that_is_not_read_is_named_for_what_it_is(sample: Sample) -> None:
    with pytest.raises(BadImage, match=sample.verdict):
        decode_image(sample.data, Feature(kind="image"), MANY)


def test_a_look_at_a_header_sees_the_channels_that_training_will_read(tmp_path: Path) -> None:
    for sample in READ:
        path = tmp_path / "picture"
        path.write_bytes(sample.data)
        found = look_at_pictures([path])
        assert found is not None, sample.name
        decoded = decode_image(sample.data, Feature(kind="image"), MANY)
        is_gray = bool((decoded.pixels == decoded.pixels[:1]).all())
        assert (found.channels == 1) == is_gray, sample.name
        assert (found.height, found.width) == decoded.source, sample.name
        depth = (
            16
            if "16 bits" in sample.name or "12 bits" in sample.name or "10 bits" in sample.name
            else 8
        )
        if "float" not in sample.name:
            assert found.bits == depth, sample.name
