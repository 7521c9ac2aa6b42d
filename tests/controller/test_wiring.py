"""What is put together from settings, and what is refused to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.settings import NodeLimits, NodeSettings
from controller.wiring import node_stores, open_stores, supply
from manifests.errors import BadSetting
from replicator.runs import RUN_SIZE_BYTES


def test_one_place_under_two_urls_is_not_two_stores(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to("store")
    own = "s3://bucket/p?endpoint=http"
    for first, second in [
        (f"{own}://localhost", f"{own}://LOCALHOST:80/"),
        (f"{own}://localhost", f"{own}://localhost&region=elsewhere"),
        (f"{own}s://host", f"{own}s://host:443"),
        (str(tmp_path / "store"), (tmp_path / "store").as_uri()),
        (str(tmp_path / "store"), str(tmp_path / "link")),
        (str(tmp_path / "absent"), str(tmp_path / "store" / ".." / "absent")),
    ]:
        with pytest.raises(BadSetting, match="one and the same"):
            open_stores([first, second])


def test_different_places_are_different_stores(tmp_path: Path) -> None:
    own = "s3://bucket/p?endpoint=http"
    urls = [f"{own}://localhost", f"{own}://localhost:81", str(tmp_path / "a"), str(tmp_path / "b")]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert [store.url for store in open_stores(urls).stores] == urls


def test_without_peers_and_caps_a_transfer_draws_on_the_stores_alone(tmp_path: Path) -> None:
    settings = NodeSettings(stores=(str(tmp_path),))
    drawn_on = supply(settings, node_stores(settings))
    assert drawn_on.peers == ()
    assert [store.url for store in drawn_on.stores] == [str(tmp_path)]
    assert drawn_on.reads_at_once == settings.limits.reads_at_once
    assert drawn_on.min_bytes_per_s == settings.limits.min_bytes_per_s
    assert drawn_on.hedge_after_s == 0


@pytest.mark.parametrize("cap", ["store_bytes_per_s", "peer_bytes_per_s"])
def test_a_read_that_a_cap_slows_down_has_the_time_that_it_takes(tmp_path: Path, cap: str) -> None:
    limits = NodeLimits.model_validate({cap: 2 << 20})
    settings = NodeSettings(stores=(str(tmp_path),), limits=limits)
    drawn_on = supply(settings, node_stores(settings))
    assert drawn_on.reads_at_once == 1
    assert drawn_on.hedge_after_s > RUN_SIZE_BYTES / (2 << 20)
