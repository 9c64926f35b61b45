"""`semconv check` as a command; its checks themselves are in tests/checks/."""

import json


def test_the_folder_that_is_written_is_named_as_it_is(semconv, tmp_path):
    folder = tmp_path / "out[abc] :smile:"
    code, out, err = semconv("check", "visibility", "cnn_plain", "--images", "1", "--output", folder)
    assert code == 0, err
    assert f"\nwritten to {folder}: visibility.svg, visibility.json\n" in out
    assert json.loads((folder / "visibility.json").read_text())
