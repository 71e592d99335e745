"""The specification of the interactive chart."""

from research.page import charts


def test_the_page_can_set_the_data_and_the_ends_of_the_curves_over_depth():
    spec = charts.explorer(log=True)
    names = {signal["name"] for signal in spec["signals"]}
    assert names >= {"least", "most", "last", "ticks"}
    assert "curves" in [data["name"] for data in spec["data"]]
    kinds = {scale["name"]: scale["type"] for scale in spec["scales"]}
    assert kinds["y"] == "log"
